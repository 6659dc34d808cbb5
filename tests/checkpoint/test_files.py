"""Checkpoint files: safe reading with clear errors, and writing completely or not at all."""

import argparse
import collections
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from detectron2.utils.file_io import PathManager
from safetensors.torch import save_file
from torch import nn

from kddetr.checkpoint import CheckpointError, atomic_write, read_checkpoint, weights_of


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil_was_here",)


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return nn.Linear(3, 2).state_dict()


def test_layouts(weights):
    extra = {"num_batches": torch.zeros(())}
    for data in (
        {"model": weights, "epoch": 3},
        {"ema_model": weights},
        {"state_dict": weights, "meta": {}},
        weights,
        {"model": {**{k: v.numpy() for k, v in weights.items()}, "total_ops": 3.0}},
    ):
        state = weights_of(data, "x.pth")
        assert state.keys() == weights.keys()
        assert all(torch.equal(state[k], v) for k, v in weights.items())
    assert "num_batches" in weights_of({"model": weights | extra}, "x.pth")
    with pytest.raises(CheckpointError, match="entries are epoch, args"):
        weights_of({"epoch": 3, "args": {}}, "x.pth")


def test_options_and_numpy_numbers_are_read(tmp_path, weights):
    file = str(tmp_path / "published.pth")
    options = argparse.Namespace(lr=1e-4, names=["a"])
    best = {"ap": np.float64(0.4), "n": np.int64(3), "f": np.float32(1)}
    torch.save({"model": weights, "args": options, "best": best, "x": np.zeros(2)}, file)
    data = read_checkpoint(file)
    assert data["args"] == options and data["best"]["ap"] == 0.4 and data["x"].shape == (2,)


@pytest.mark.parametrize("name", ["x.pth", "x.pkl", "legacy.pth"])
def test_code_is_not_run(tmp_path, monkeypatch, weights, name):
    monkeypatch.chdir(tmp_path)
    data = {"model": weights, "extra": Evil()}
    if name == "x.pkl":
        (tmp_path / name).write_bytes(pickle.dumps({"model": {}, "extra": Evil()}))
    else:
        torch.save(data, name, _use_new_zipfile_serialization=name != "legacy.pth")
    with pytest.raises(CheckpointError, match=r"unpickling \w+\.mkdir can run code") as error:
        read_checkpoint(name)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "evil_was_here").exists()


def test_detectron2_pickle(tmp_path):
    arrays = {"stem.conv1.weight": np.ones((2, 3), np.float32)}
    data = {"model": collections.OrderedDict(arrays), "__author__": "torchvision"}
    for protocol in (2, 4):
        (tmp_path / "R.pkl").write_bytes(pickle.dumps(data, protocol))
        state = weights_of(read_checkpoint(str(tmp_path / "R.pkl")), "R.pkl")
        assert torch.equal(state["stem.conv1.weight"], torch.ones(2, 3))


def test_safetensors_and_folders_that_hold_them(tmp_path, weights):
    save_file(weights, tmp_path / "model.safetensors")
    for path in (tmp_path / "model.safetensors", tmp_path):
        state = weights_of(read_checkpoint(str(path)), "x")
        assert all(torch.equal(state[k], v) for k, v in weights.items())
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-3])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
        read_checkpoint(str(tmp_path / "model.safetensors"))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"a folder without model\.safetensors"):
        read_checkpoint(str(tmp_path))


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_tensors_are_views_that_do_not_write_to_the_file(tmp_path, weights, name):
    file = tmp_path / name
    if name == "x.pth":
        torch.save(weights, file)
    else:
        save_file(weights, file)
    before = file.read_bytes()
    state = read_checkpoint(str(file))
    state["weight"] += 1  # a private page, as when a process trains on what it has read
    assert file.read_bytes() == before
    atomic_write(str(file), lambda stream: stream.write(b"another"))
    assert torch.equal(state["bias"], weights["bias"])  # the old file lives as long as its views


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux for its memory")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_reading_takes_no_memory(tmp_path, suffix):
    def private() -> int:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

    file, model = tmp_path / f"x.{suffix}", nn.Linear(4096, 4096)
    (torch.save if suffix == "pth" else save_file)(model.state_dict(), file)

    def read() -> dict:
        state = weights_of(read_checkpoint(str(file)), "x")
        model.load_state_dict(state)
        return state

    read()  # what the first time takes for itself, such as the stacks of PyTorch's threads
    before = private()
    state = read()
    assert private() - before < 16_000  # kB; the weights are 64 MB
    assert state  # which has held the weights until here


def test_damaged_files(tmp_path, weights):
    for number in (3, 6):
        torch.save({"model": weights}, tmp_path / f"model_{number:07d}.pth")
    last = tmp_path / "model_0000009.pth"
    whole = (tmp_path / "model_0000003.pth").read_bytes()
    advice = r"model_0000006\.pth beside it is whole"
    for content, words in (
        (b"", "is empty"),
        (whole[: len(whole) // 2], "is cut off"),
        (b"\x00\x01\x02\x03" * 9, "is damaged"),
    ):
        last.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{words}.*{advice}"):
            read_checkpoint(str(last))
    flipped = bytearray(whole)
    with zipfile.ZipFile(tmp_path / "model_0000003.pth") as archive:
        start = next(i for i in archive.infolist() if i.filename.endswith("data.pkl")).header_offset
    flipped[start + 80 : start + 120] = b"\xff" * 40
    last.write_bytes(flipped)
    with pytest.raises(CheckpointError, match=r"model_0000009\.pth is damaged"):
        read_checkpoint(str(last))


@pytest.mark.parametrize("mode", ["w", "wb", "a", "r+b", "x"])
def test_bundled_files_are_only_read(tmp_path, monkeypatch, mode):
    (tmp_path / "x.pth").write_bytes(b"bundled")
    monkeypatch.setattr("kddetr.checkpoint.assets.FOLDER", tmp_path)
    with pytest.raises(OSError, match=r"kddetr://x\.pth is a file of the package"):
        PathManager.open("kddetr://x.pth", mode)
    with PathManager.open("kddetr://x.pth", "rb") as file:
        assert file.read() == b"bundled"


def test_missing_file(tmp_path, weights):
    torch.save(weights, tmp_path / "teacher.pth")
    with pytest.raises(CheckpointError, match=r"did you mean teacher\.pth\?"):
        read_checkpoint(str(tmp_path / "techer.pth"))
    with pytest.raises(CheckpointError, match="No checkpoint was named"):
        read_checkpoint("")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"old")

    def fails(stream):
        stream.write(b"new, but")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        atomic_write(str(file), fails)
    assert file.read_bytes() == b"old" and [f.name for f in tmp_path.iterdir()] == ["x"]
