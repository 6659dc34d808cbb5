"""Prefixes of training wrappers: removed where the names do not fit with them, and said."""

import logging

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kddetr.checkpoint import CheckpointError, load_pretrained
from tests.checkpoint import other_names
from tests.checkpoint.test_published import golden, loaded

PREFIXES = [
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "model.",
    "model.student.",
    "student.model.",
    "detector.",
    "_fsdp_wrapped_module.",
    "lightning.module.model.",
    "architecture.",
]


class Model(nn.Module):
    """Some of its own names begin with ``model.``."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(3, 2)
        self.head = nn.Linear(2, 2)


def prefixed(prefix: str, state: dict) -> dict:
    return {prefix + name: value for name, value in state.items()}


def is_loaded(file, state: dict) -> bool:
    model = Model()
    load_pretrained(model, str(file))
    return all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_removed_in_a_line(tmp_path, caplog, prefix):
    state = Model().state_dict()
    torch.save({"model": prefixed(prefix, state)}, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, logger="kddetr"):
        assert is_loaded(tmp_path / "x.pth", state)
    said = [r.getMessage() for r in caplog.records if "is removed from the names" in r.getMessage()]
    assert len(said) == 1
    assert all(word in said[0] for word in prefix.split("."))
    save_file(prefixed(prefix, state), tmp_path / "x.safetensors")
    assert is_loaded(tmp_path / "x.safetensors", state)


def test_what_is_compiled_inside_of_a_model(tmp_path):
    state = Model().state_dict()
    inside = {name.replace("model.", "model._orig_mod."): value for name, value in state.items()}
    torch.save({"model": inside}, tmp_path / "x.pth")
    assert is_loaded(tmp_path / "x.pth", state)


@pytest.mark.parametrize("name", ["model", "module", "student"])
def test_names_that_fit_as_they_are_stay(tmp_path, caplog, name):
    model = nn.ModuleDict({name: nn.Linear(2, 2)})
    torch.save(model.state_dict(), tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, logger="kddetr"):
        load_pretrained(model, str(tmp_path / "x.pth"))
    assert "is removed" not in caplog.text


@pytest.mark.parametrize(
    ("before", "beside"),
    [
        ("", ["teacher.a", "projection.weight"]),
        ("module.", ["teacher.a"]),
        ("model.", ["teacher.model.weight"]),
    ],
)
def test_the_student_of_a_whole_distillers_file(tmp_path, caplog, before, beside):
    state = Model().state_dict()
    whole = prefixed(f"{before}student.", state)
    whole |= {before + name: torch.zeros(1) for name in beside}
    torch.save({"model": whole}, tmp_path / "x.pth")
    with caplog.at_level(logging.INFO, logger="kddetr"):
        assert is_loaded(tmp_path / "x.pth", state)
    assert "student. is removed" in caplog.text and "beside it left out" in caplog.text


def test_an_unknown_part_beside_the_prefix_is_not_left_out(tmp_path):
    whole = prefixed("model.x.", Model().state_dict()) | {"other.weight": torch.zeros(1)}
    torch.save({"model": whole}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"None of the 5 weights in .*x\.pth fits"):
        load_pretrained(Model(), str(tmp_path / "x.pth"))


@pytest.mark.parametrize("prefix", ["module.", "model.", "detr._orig_mod."])
def test_a_published_detector_behind_a_prefix(tmp_path, monkeypatch, prefix):
    """Recognised and loaded as without it."""
    z = golden("dino_eval")
    state = other_names.dino_official(z.state())
    found = []
    for weights in (state, prefixed(prefix, state)):
        torch.save({"model": weights}, tmp_path / "x.pth")
        found.append(loaded(z, "dino_eval", monkeypatch, str(tmp_path / "x.pth"), "official"))
    for name, value in found[0].state_dict().items():
        assert torch.equal(value, found[1].state_dict()[name])
