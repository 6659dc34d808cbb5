"""Damaged and crafted files are read correctly, or refused in one sentence."""

import argparse
import gc
import multiprocessing
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kddetr.checkpoint import CheckpointError, read_checkpoint, weights_of
from kddetr.checkpoint.arrays import STAND_INS


def text(value: str) -> bytes:
    """The opcode that makes a text."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def dtype(code: str, byte_order: str = "|", *, flags: int = 0, copy: bool = True) -> bytes:
    """Opcodes that make numpy's dtype and set its state."""
    made = b"cnumpy\ndtype\n(" + text(code) + b"\x89" + (b"\x88" if copy else b"\x89") + b"tR"
    return (
        made
        + b"(K\x03"
        + text(byte_order)
        + b"NNN"
        + b"J\xff\xff\xff\xff" * 2
        + bytes([ord("K"), flags, ord("t"), ord("b")])
    )


def encoded(raw: bytes) -> bytes:
    """Bytes as protocol 2 has them."""
    return b"c_codecs\nencode\n(" + text(raw.decode("latin1")) + text("latin1") + b"tR"


def scalar(kind: bytes, raw: bytes) -> bytes:
    return b"cnumpy._core.multiarray\nscalar\n(" + kind + encoded(raw) + b"tR"


def array(kind: bytes, raw: bytes, length: int) -> bytes:
    empty = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00t" + encoded(b"b")
    return empty + b"tR(K\x01(K" + bytes([length]) + b"t" + kind + b"\x89" + encoded(raw) + b"tb"


def checkpoint(value: bytes) -> bytes:
    return b"\x80\x02}" + text("model") + b"}" + text("a") + value + b"ss."


# What numpy itself would accept: objects at addresses that the file names; an object that has to be
# released with each float64; eight more bytes for the float64 of the whole process.
CRAFTED = {
    "object_scalar": checkpoint(scalar(dtype("O8"), b"A" * 8)),
    "object_array": checkpoint(array(dtype("O8"), b"A" * 8, 1)),
    "flags": checkpoint(array(dtype("f8", "<", flags=63), b"A" * 16, 2)),
    "flags_of_all": checkpoint(array(dtype("f8", "<", flags=63, copy=False), b"A" * 16, 2)),
    "too_long": checkpoint(array(dtype("f8", "<"), b"A" * 16, 200)),
    "class_itself": checkpoint(b"cnumpy\nndarray\n(K\x01" + dtype("O8") + b"tR"),
    "changed_function": checkpoint(
        b"cnumpy._core.multiarray\nscalar\nN}" + text("__defaults__") + b"Ns\x86b"
    ),
}


def as_pth(pickled: bytes, file: Path) -> None:
    """A ``.pth`` with another pickle in it; its other parts are those of the file, if there is."""
    if not file.is_file():
        torch.save({"a": torch.ones(1)}, file)
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else content)


def refuse_all(files: list[str]) -> None:
    gc.freeze()  # so that collecting is quick
    for file in files:
        with pytest.raises(CheckpointError) as refused:
            weights_of(read_checkpoint(file), file)
        assert len(str(refused.value).splitlines()) == 1
        gc.collect()
        double = np.dtype("float64")
        assert (double.flags, double.itemsize, double.hasobject) == (0, 8, False), file
        assert float(np.ones(5).sum()) == 5
        assert np.float64(3) == 3


def test_crafted_arrays_do_no_harm(tmp_path):
    """In a separate process, because such files have crashed Python or changed numpy for good."""
    for name, pickled in CRAFTED.items():
        (tmp_path / f"{name}.pkl").write_bytes(pickled)
        as_pth(pickled, tmp_path / f"{name}.pth")
    files = sorted(str(file) for file in tmp_path.iterdir())
    process = multiprocessing.get_context("fork").Process(target=refuse_all, args=(files,))
    process.start()
    process.join(120)
    assert process.exitcode == 0


def test_a_pickle_cannot_set_attributes_of_the_stand_ins(tmp_path):
    functions = {key: call for key, call in STAND_INS.items() if not isinstance(call, type)}
    for (module, name), call in functions.items():
        assert not hasattr(call, "__dict__")
        for slot in call.__slots__:
            before = getattr(call, slot)
            setting = b"N}" + text(slot) + b"Ns\x86b"
            pickled = checkpoint(f"c{module}\n{name}\n".encode() + setting)
            (tmp_path / "x.pkl").write_bytes(pickled)
            as_pth(pickled, tmp_path / "x.pth")
            for file in ("x.pkl", "x.pth"):
                with pytest.raises(CheckpointError):
                    read_checkpoint(str(tmp_path / file))
                assert getattr(call, slot) is before


ARRAYS = {
    "big": np.arange(6, dtype=">f4").reshape(2, 3),
    "little": np.arange(6, dtype="<i8").reshape(3, 2),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "view": np.arange(12, dtype=np.float16)[::2],
    "none": np.zeros((0, 3)),
    "number": np.array(2.5),
    "yes": np.array([True, False]),
    "complex": np.array([1 + 2j], dtype=">c8"),
    "byte": np.arange(250, 256).astype(np.uint8),
}


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_arrays_of_every_kind_of_number(tmp_path, protocol, suffix):
    data = {"model": ARRAYS, "best": np.float32(0.25), "n": np.int64(-3), "on": np.bool_(True)}
    file = tmp_path / f"x.{suffix}"
    if suffix == "pkl":
        file.write_bytes(pickle.dumps(data, protocol))
    else:
        torch.save(data, file)
    data = read_checkpoint(str(file))
    assert (data["best"], data["n"], bool(data["on"])) == (0.25, -3, True)
    assert type(data["best"]) is np.float32 and type(data["n"]) is np.int64
    for name, value in weights_of(data, "x").items():
        np.testing.assert_array_equal(value.numpy(), ARRAYS[name])
        value.zero_()  # its bytes are not shared
    again = pickle.loads(pickle.dumps(data["model"]["big"]))
    assert type(again) is np.ndarray


def test_a_pickle_of_arrays_may_have_any_name(tmp_path):
    (tmp_path / "R.pth").write_bytes(pickle.dumps({"model": {"a": np.ones(2)}}))
    assert weights_of(read_checkpoint(str(tmp_path / "R.pth")), "R.pth")["a"].tolist() == [1, 1]
    torch.save({"a": torch.ones(2)}, tmp_path / "R.pkl", _use_new_zipfile_serialization=False)
    assert weights_of(read_checkpoint(str(tmp_path / "R.pkl")), "R.pkl")["a"].tolist() == [1, 1]


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil_was_here",)


@pytest.mark.parametrize("protocol", [2, 4])
def test_code_in_a_pickle_of_any_name(tmp_path, monkeypatch, protocol):
    monkeypatch.chdir(tmp_path)
    for name in ("x.pth", "x.bin", "x.pkl"):
        Path(name).write_bytes(pickle.dumps({"model": {}, "extra": Evil()}, protocol))
        with pytest.raises(CheckpointError, match=r"unpickling \w+\.mkdir can run code"):
            read_checkpoint(name)
    assert not Path("evil_was_here").exists()


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
@pytest.mark.parametrize(
    "odd", [np.array(["x"]), np.array([None, 1]), np.array(["2020"], dtype="M8[D]")], ids=str
)
def test_arrays_of_no_numbers(tmp_path, suffix, odd):
    file = tmp_path / f"x.{suffix}"
    if suffix == "pkl":
        file.write_bytes(pickle.dumps({"model": {"a": odd}}))
    else:
        torch.save({"model": {"a": odd}}, file)
    words = r"an array of type '[UOM]\w*', and only numbers are read; .* save the weights alone"
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(str(file))
    with pytest.raises(CheckpointError, match=r"a \(an array of \S+\)"):
        weights_of({"model": {"a": odd}}, "x")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({0: torch.ones(1)}, r"0 \(a name that is not a string\)"),
        ({"a": torch.ones(1), "b": "text"}, r"b \(str\)"),
        ({"a": torch.eye(2).to_sparse()}, r"a \(a sparse tensor\)"),
        ({"a": torch.ones(2, device="meta")}, r"a \(a tensor without its numbers\)"),
    ],
    ids=["name", "text", "sparse", "meta"],
)
def test_entries_that_are_no_weights(entries, words):
    with pytest.raises(CheckpointError, match=rf"under model: {words}.*save model\.state_dict"):
        weights_of({"model": entries}, "x.pth")


def damaged(raw: bytes, dice: random.Random) -> bytes:
    """The same with a few bytes changed, and sometimes cut off."""
    changed = bytearray(raw)
    for _ in range(dice.choice([1, 1, 2, 5])):
        changed[dice.randrange(len(raw))] = dice.randrange(256)
    return bytes(changed[: dice.randrange(1, len(raw))] if dice.random() < 0.1 else changed)


def whole_files(folder: Path) -> dict[str, tuple[Path, bytes]]:
    """A file of every format, and the part of it that is to be damaged."""
    names = ("x.pth", "old.pth", "x.pkl", "x.safetensors")
    files = {name: folder / name for name in names}
    beside = {"args": argparse.Namespace(x=1, lr=np.float64(2)), "epoch": 3}
    data = {"model": {"a.weight": torch.ones(4, 4), "b": np.ones(3)}, **beside}
    torch.save(data, files["x.pth"])
    torch.save(data, files["old.pth"], _use_new_zipfile_serialization=False)
    arrays = {"model": {"a": np.ones((2, 3), np.float32)}, "__author__": "x"}
    files["x.pkl"].write_bytes(pickle.dumps(arrays))
    save_file({"a": torch.ones(3, 4), "b": torch.zeros(2)}, files["x.safetensors"])
    found = {name: (file, file.read_bytes()) for name, file in files.items()}
    with zipfile.ZipFile(files["x.pth"]) as archive:
        inside = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        found["x.pth"] = files["x.pth"], archive.read(inside)
    return found


@pytest.mark.parametrize("name", ["x.pth", "old.pth", "x.pkl", "x.safetensors"])
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_read_or_refused(tmp_path, name):
    file, raw = whole_files(tmp_path)[name]
    dice = random.Random(0)
    refused = 0
    for _ in range(120):
        changed = damaged(raw, dice)
        if name == "x.pth":
            as_pth(changed, file)
        else:
            file.write_bytes(changed)
        try:
            weights_of(read_checkpoint(str(file)), name)
        except CheckpointError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 1000
    assert 10 < refused < 120


def test_a_refused_file_leaves_no_trace(tmp_path):
    """PyTorch's list of allowed types is the same afterwards."""
    before = set(torch.serialization.get_safe_globals())
    as_pth(CRAFTED["flags"], tmp_path / "x.pth")
    with pytest.raises(CheckpointError):
        read_checkpoint(str(tmp_path / "x.pth"))
    assert set(torch.serialization.get_safe_globals()) == before
