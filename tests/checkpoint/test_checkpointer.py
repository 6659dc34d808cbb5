"""The checkpointer: what it saves, which file it resumes from, what it refuses."""

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from kddetr.checkpoint import (
    Checkpointer,
    CheckpointError,
    WrapperState,
    deployable,
    read_checkpoint,
)


class Wrapper(nn.Module):
    def __init__(self, width: int = 3):
        super().__init__()
        self.student = nn.Linear(2, 2)
        self.projection = nn.Linear(width, 1)

    @property
    def deployable(self) -> nn.Module:
        return self.student


def test_detector_and_wrapper_are_saved_apart(tmp_path):
    model = Wrapper()
    saver = Checkpointer(model, str(tmp_path), wrapper=WrapperState(model))
    saver.save("model_0000001", iteration=1)
    data = read_checkpoint(str(tmp_path / "model_0000001.pth"))
    assert data["model"].keys() == {"weight", "bias"} and data["iteration"] == 1
    other = Wrapper()
    loaded = Checkpointer(other, str(tmp_path), wrapper=WrapperState(other))
    assert loaded.resume_or_load("", resume=True) == {"iteration": 1}
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])
    wider = Wrapper(4)
    with pytest.raises(CheckpointError, match=r"projection\.weight"):
        Checkpointer(wider, str(tmp_path), wrapper=WrapperState(wider)).resume_or_load("")
    assert deployable(model.student) is model.student


def test_best_weights_are_not_the_last_checkpoint(tmp_path):
    saver = Checkpointer(nn.Linear(2, 2), str(tmp_path))
    assert saver.last_checkpoint() == ""
    saver.save("model_0000001")
    saver.save_weights("model_best", metric=1.0)
    assert saver.last_checkpoint().endswith("model_0000001.pth")
    assert not list(tmp_path.glob("*.tmp*"))


def damage_none(folder):
    """Nothing is damaged."""


def damage_note(folder):
    (folder / "last_checkpoint").write_bytes(b"\x00\xff")


def damage_by_a_name_that_is_missing(folder):
    (folder / "last_checkpoint").write_text("model_0000009.pth")


def damage_by_cutting(folder):
    last = folder / "model_0000003.pth"
    last.write_bytes(last.read_bytes()[:500])


def damage_in_the_middle(folder):
    """Only the weights: names and shapes can still be read."""
    last = folder / "model_0000003.pth"
    saved = last.read_bytes()
    weights = nn.init.constant_(nn.Linear(2, 2).weight, 7.0).detach().numpy().tobytes()
    assert saved.count(weights) == 1
    last.write_bytes(saved.replace(weights, bytes(len(weights))))


def damage_by_removing(folder):
    (folder / "last_checkpoint").unlink()


@pytest.mark.parametrize(
    ("damage", "taken"),
    [
        (damage_none, 3),
        (damage_note, 3),
        (damage_by_removing, 3),
        (damage_by_a_name_that_is_missing, 3),
        (damage_by_cutting, 1),
        (damage_in_the_middle, 1),
    ],
)
def test_damage_does_not_keep_a_run_from_its_newest_whole_checkpoint(
    tmp_path, damage, taken, caplog
):
    model = nn.Linear(2, 2)
    saver = Checkpointer(model, str(tmp_path))
    for iteration in (0, 1, 3):
        nn.init.constant_(model.weight, 7.0 if iteration == 3 else iteration)
        saver.save(f"model_{iteration:07d}", iteration=iteration)
    saver.save_weights("model_best", iteration=9)
    (tmp_path / "model_0000000.pth").touch()  # a copy has other times
    damage(tmp_path)
    nn.init.zeros_(model.weight)
    assert saver.resume_or_load("", resume=True)["iteration"] == taken
    assert model.weight[0, 0] == (7.0 if taken == 3 else 1.0)
    assert ("so the run resumes from" in caplog.text) is (damage is not damage_none)


def test_a_folder_in_which_no_checkpoint_is_whole(tmp_path):
    saver = Checkpointer(nn.Linear(2, 2), str(tmp_path))
    saver.save("model_0000001")
    (tmp_path / "model_0000001.pth").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"0 bytes.*no other checkpoint in"):
        saver.last_checkpoint()


def test_resuming_with_another_model_is_refused(tmp_path):
    Checkpointer(nn.Linear(2, 2), str(tmp_path)).save("model_0000001")
    with pytest.raises(CheckpointError, match="all of it has to"):
        Checkpointer(nn.Linear(2, 2, bias=False), str(tmp_path)).resume_or_load("", resume=True)


def test_a_wrappers_own_state_leaves_the_detectors_frozen_norms_alone():
    """A frozen batch norm resets itself when its names are missing from a state that is loaded."""
    wrapper = Wrapper()
    wrapper.student = FrozenBatchNorm2d(2)
    wrapper.student.running_var.fill_(3.0)
    wrapper.student.running_mean.fill_(2.0)
    state = {k: v + 1 for k, v in WrapperState(wrapper).state_dict().items()}
    assert set(state) == {"projection.weight", "projection.bias"}
    WrapperState(wrapper).load_state_dict(state)
    assert wrapper.student.running_var.tolist() == [3.0, 3.0]
    assert wrapper.student.running_mean.tolist() == [2.0, 2.0]
    assert torch.equal(wrapper.projection.weight, state["projection.weight"])


def test_a_run_cannot_resume_from_weights_alone(tmp_path):
    model = nn.Linear(2, 2)
    saver = Checkpointer(model, str(tmp_path), wrapper=WrapperState(model))
    saver.save("model_0000001")
    saver.save_weights("model_best")
    (tmp_path / "last_checkpoint").write_text("model_best.pth")
    with pytest.raises(CheckpointError, match="no wrapper state"):
        saver.resume_or_load("", resume=True)
