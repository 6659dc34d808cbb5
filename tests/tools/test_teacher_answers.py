"""What a teacher's answers hold, on answers that were made by hand."""

from pathlib import Path

import pytest
import torch

import teacher_answers
from kddetr.detectors.detr.matcher import Target
from kddetr.structures import Predictions

ROOT = Path(__file__).parents[2]


def test_figures_of_answers_made_by_hand():
    """Three points: one is right about the first of two objects, one has its class at another
    place, and one its place with another class.
    """
    objects = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]])
    target = Target(torch.tensor([1, 0]), objects)
    probabilities = torch.tensor([[0.2, 0.8], [0.1, 0.4], [0.2, 0.1]])
    boxes = torch.stack([objects[0], torch.tensor([0.1, 0.8, 0.1, 0.1]), objects[0]])
    answers = Predictions(probabilities.logit()[None, None], boxes[None, None])
    asked = boxes[[0, 0, 0]][None]  # the first and the third answer are where they were asked
    (found,) = teacher_answers.figures(answers, asked, [target])
    effective = 1.4**2 / (0.64 + 0.16 + 0.04) / 3
    expected = [1.4 / 3, effective, 0.8 / 1.4, 0.5, 1.0, 1.0 / 1.4, 0.4 / 1.4]
    assert found.tolist() == pytest.approx(expected, abs=1e-4)  # IoU has a small constant


def test_an_image_without_objects_has_no_share_of_them():
    answers = Predictions(torch.zeros(1, 1, 2, 3), torch.full((1, 1, 2, 4), 0.5))
    target = Target(torch.zeros(0, dtype=torch.long), torch.zeros(0, 4))
    (found,) = teacher_answers.figures(answers, answers.boxes[-1], [target])
    named = dict(zip(teacher_answers.FIGURES, found.tolist(), strict=True))
    assert named["right"] == 0 and named["weight"] == pytest.approx(0.5)
    assert torch.isnan(found[[3, 4]]).all()


def test_a_config_without_a_teacher_is_refused(capsys):
    with pytest.raises(SystemExit):
        teacher_answers.main([str(ROOT / "configs/quickstart/alone.py")])
    assert "has no teacher: name the config of a distillation" in capsys.readouterr().err


def test_the_table_has_a_row_for_each_group():
    values = dict.fromkeys(teacher_answers.FIGURES, 0.25)
    text = teacher_answers.table({"a/b.py": {"general": values, "specific": values}})
    assert text.splitlines()[2].startswith("| general | `b` | 0.250 |") and text.count("\n") == 3
    assert teacher_answers.table({}) == ""
