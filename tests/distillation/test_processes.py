"""Two processes together learn what one learns, each from points of its own."""

import pytest
import torch

from kddetr.engine import launch
from tests.distillation.processes import gradients


def step(folder, processes, *job):
    """What each of the processes saved: gradients and points."""
    launch(gradients, processes=processes, device=torch.device("cpu"), args=(str(folder), *job))
    return [torch.load(folder / f"{processes}-{rank}.pth") for rank in range(processes)]


@pytest.mark.parametrize("family, student", [("dab_detr", {}), ("dino", {"denoising_number": 0})])
@pytest.mark.parametrize("boxes", [(3, 1), (3, None)])
def test_two_processes_have_the_gradients_of_one(tmp_path, boxes, family, student):
    """Also where one of them has no labelled image, and with a projection between widths."""
    ((one, _),) = step(tmp_path, 1, boxes, family, student)
    (first, points), (second, others) = step(tmp_path, 2, boxes, family, student)
    assert one.keys() == first.keys()
    assert any(name.startswith("projection.") for name in one) == (family == "dino")
    for name in one:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], one[name], atol=1e-5, rtol=1e-4)
    (general, specific), (other_general, other_specific) = (
        p.split([4, 6], dim=1) for p in (points, others)
    )
    assert not torch.equal(general, other_general)
    if family == "dab_detr":  # proposals are those of each process's own images
        assert torch.equal(specific, other_specific)


def test_denoising_in_two_processes_of_which_one_has_no_boxes(tmp_path):
    (first, _), (second, _) = step(tmp_path, 2, (3, None), "dino", {})
    assert "student.denoising.label_embedding.weight" in first
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]) and gradient.isfinite().all(), name
