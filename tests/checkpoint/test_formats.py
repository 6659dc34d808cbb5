"""Files that are no checkpoint are called what they are; a model in several files is one."""

import json
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kddetr.checkpoint import CheckpointError, read_checkpoint

STATE = nn.Linear(3, 2).state_dict()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "git lfs pull"),
        ("x.pth", b"\xef\xbb\xbf\n<!DOCTYPE html><html></html>", "a web page"),
        ("x.pth", b"<html>not found</html>", "a web page"),
        ("x.onnx", b"\x08\x07\x12\x07pytorch\x1a\x032.1", "an ONNX file"),
        ("x.pth", b"\x08\x07\x12\x07pytorch\x1a\x032.1", "an ONNX file"),
        ("x.pth", b'{"classes": []}', "a text file"),
        ("x.py", b"model = 1\n", "a text file"),
        ("x.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
        ("x.pth.gz", b"\x1f\x8b" + bytes(99), "compressed by gzip"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"The checkpoint .*{name} is .*{words}") as error:
        read_checkpoint(str(tmp_path / name))
    assert len(str(error.value).splitlines()) == 1 and "damaged" not in str(error.value)


@pytest.mark.parametrize("in_zip", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_protocols_of_the_pickle_in_a_file(tmp_path, protocol, in_zip):
    """PyTorch reads two of them without running code, and the others are called what they are."""
    file, options = tmp_path / "x.pth", {"_use_new_zipfile_serialization": in_zip}
    torch.save({"model": STATE}, file, pickle_protocol=protocol, **options)
    if protocol < 4:
        assert torch.equal(read_checkpoint(str(file))["model"]["weight"], STATE["weight"])
        return
    with pytest.raises(CheckpointError, match="is written with pickle_protocol 4 or 5"):
        read_checkpoint(str(file))


@pytest.mark.parametrize("content", [b"model_final.pth", b"\x18\0\0\0\0\0\0\0 events", b"\nPK"])
def test_bytes_that_are_no_checkpoint_at_all(tmp_path, content):
    (tmp_path / "last").write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged or no checkpoint at all; no other"):
        read_checkpoint(str(tmp_path / "last"))


def test_a_device_is_no_file():
    with pytest.raises(CheckpointError, match="/dev/null is a device or pipe; name a file"):
        read_checkpoint("/dev/null")


def test_archives(tmp_path, recwarn):
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "script.pth")
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    torch.save(STATE, tmp_path / "inner.pth")
    with zipfile.ZipFile(tmp_path / "outer.pth", "w") as archive:
        archive.write(tmp_path / "inner.pth", "inner.pth")
    recwarn.clear()
    for name, words in (
        ("script.pth", "a TorchScript program"),
        ("arrays.npz", r"without weights of PyTorch \(a\.npy\)"),
        ("outer.pth", r"\(inner\.pth\); unpack it"),
    ):
        with pytest.raises(CheckpointError, match=words):
            read_checkpoint(str(tmp_path / name))
    assert not [w for w in recwarn if "TorchScript" in str(w.message)]


@pytest.mark.parametrize("kind", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_in_several_files(tmp_path, kind):
    stem, _, end = kind.rpartition(".")
    places = {name: f"{stem}-0000{i}-of-00002.{end}" for i, name in enumerate(STATE, 1)}
    for name, file in places.items():
        save = save_file if end == "safetensors" else torch.save
        save({name: STATE[name]}, tmp_path / file)
    index = tmp_path / f"{kind}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    for path in (tmp_path, index):
        found = read_checkpoint(str(path))
        assert found.keys() == STATE.keys()
        assert all(torch.equal(value, STATE[name]) for name, value in found.items())
    part = tmp_path / places["weight"]
    with pytest.raises(CheckpointError, match=r"is part 1 of 2 .*name the folder"):
        read_checkpoint(str(part))
    index.write_text(json.dumps({"weight_map": places | {"other": part.name}}))
    with pytest.raises(CheckpointError, match=r"1 weights .* not in their files, 'other'"):
        read_checkpoint(str(tmp_path))
    part.unlink()
    with pytest.raises(CheckpointError, match=r"-00001-of-00002\.\w+ does not exist"):
        read_checkpoint(str(tmp_path))
    index.write_text("[]")
    with pytest.raises(CheckpointError, match="has no 'weight_map'"):
        read_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("detector.pth", r"e\.g\. detector\.pth"),
        ("__0_0.distcp", "dcp_to_torch"),
        ("zero_to_fp32.py", "DeepSpeed"),
        ("readme", "name a file"),
    ],
)
def test_folders_without_one_file_of_weights(tmp_path, name, words):
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=rf"a folder without .*{words}"):
        read_checkpoint(str(tmp_path))
