"""Damage inside of the archive that a ``.pth`` file is, which PyTorch itself would not notice."""

import zipfile

import pytest
import torch

from kddetr.checkpoint import CheckpointError, archive, read_checkpoint

WEIGHTS = {"a": torch.arange(64.0), "b": torch.ones(3, 5)}


@pytest.fixture
def file(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def rewritten(file, change=lambda name, content: content, packing=zipfile.ZIP_STORED):
    """Pack the parts of a file anew, with right checksums."""
    with zipfile.ZipFile(file) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(file, "w", packing) as packed:
        for name, content in parts.items():
            packed.writestr(name, change(name, content))


def test_changed_bytes_of_a_weight_are_refused(file):
    raw = bytearray(file.read_bytes())
    place = bytes(raw).index(WEIGHTS["a"].numpy().tobytes()) + 17
    raw[place] ^= 64
    file.write_bytes(raw)
    with pytest.raises(CheckpointError, match="part x/data/0 is damaged"):
        read_checkpoint(str(file))


def test_a_file_that_was_compressed_is_refused(file):
    rewritten(file, packing=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed by another program"):
        read_checkpoint(str(file))


@pytest.mark.parametrize("change", [lambda c: c[: len(c) // 2], lambda c: c + c])
def test_a_tensor_of_another_length_than_its_part_is_refused(file, change):
    rewritten(file, lambda name, c: change(c) if name.endswith("data/0") else c)
    with pytest.raises(CheckpointError, match="another length than its part"):
        read_checkpoint(str(file))


def test_files_without_checksums_and_with_shared_weights_are_read(tmp_path):
    shared = torch.arange(6.0)
    saved = {"model": {"a": shared, "b": shared[2:], "c": shared.view(2, 3), "d": torch.empty(0)}}
    before = torch.serialization.get_crc32_options()
    try:
        torch.serialization.set_crc32_options(False)
        torch.save(saved, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    found = read_checkpoint(str(tmp_path / "x.pth"))["model"]
    assert all(torch.equal(found[name], value) for name, value in saved["model"].items())


def test_a_file_that_was_packed_anew_without_compression_is_read(file):
    rewritten(file)
    assert torch.equal(read_checkpoint(str(file))["model"]["a"], WEIGHTS["a"])


def test_the_checksums_of_a_file_that_does_not_change_are_compared_once(file, monkeypatch):
    opened = []
    real = zipfile.ZipFile.open
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *a: opened.append(a) or real(*a))
    monkeypatch.setattr(archive, "_SETTLED", -1.0)
    assert archive.check_parts(str(file)) == archive.check_parts(str(file))
    once = len(opened)
    torch.save({"model": WEIGHTS | {"c": torch.ones(9)}}, file)
    assert 36 in archive.check_parts(str(file)) and len(opened) > once > 0


def test_a_file_that_has_just_changed_is_always_compared(file):
    read_checkpoint(str(file))
    test_changed_bytes_of_a_weight_are_refused(file)
