"""The program teacher.py: the file that it writes."""

import pytest
import torch

from kddetr.checkpoint import Checkpointer
from kddetr.errors import CheckpointError
from teacher import weights_and_card


def test_a_finished_run_of_an_earlier_version_is_refused(tmp_path):
    """Its checkpoint has no model card."""
    torch.save({"model": {"weight": torch.ones(1)}}, tmp_path / "model_final.pth")
    with pytest.raises(CheckpointError, match="no model card, because an earlier version"):
        weights_and_card(tmp_path / "model_final.pth")


def test_weights_and_card_are_those_of_the_checkpoint(tmp_path):
    card = {"format": 1, "model": None, "input": None, "classes": ["a"], "trained": {}}
    card |= {"teacher": None, "results": {}}
    Checkpointer(torch.nn.Linear(1, 1), str(tmp_path), card=card).save("model_final")
    weights, found = weights_and_card(tmp_path / "model_final.pth")
    assert weights.keys() == {"weight", "bias"} and found["classes"] == ["a"]
