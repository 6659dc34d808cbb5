"""Two processes together compute the gradients of one, each at points of its own."""

import pytest
import torch

from kddetr.engine import launch
from tests.distillation.processes import Case, save_steps
from tests.records import image_files, random_record

pytestmark = pytest.mark.slow

LABELLED, HALF = (3, 1), (3, None)  # in the second, one process has no labelled image
CASES = [
    Case(family, boxes, options)
    for family, options in (("dab_detr", {}), ("dino", {"denoising_number": 0}))
    for boxes in (LABELLED, HALF)
]
DENOISING = Case("dino", HALF, {})
RECORDED = Case("dab_detr", HALF, {}, recorded=True)


@pytest.fixture(scope="module")
def steps(tmp_path_factory):
    """(gradients, points, log) by process, number of processes and case; processes start slowly, so
    one pair of them runs all cases.
    """
    folder, cases = tmp_path_factory.mktemp("steps"), [*CASES, DENOISING, RECORDED]
    images = image_files(folder / "images", [(40, 56), (40, 56)])
    random_record(folder / "record", images, (5, 0))
    for count in (1, 2):
        launch(save_steps, processes=count, device=torch.device("cpu"), args=(str(folder), cases))
    names = ("1-0", "2-0", "2-1")
    saved = {name: torch.load(folder / f"{name}.pth") for name in names}
    found = {name: dict(zip(map(str, cases), values)) for name, values in saved.items()}
    for name in [f"{kind}-{name}" for kind in ("parts", "stopped") for name in names]:
        found[name] = torch.load(folder / f"{name}.pth")
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_have_the_gradients_of_one(steps, case):
    """Also with a projection between widths, which DINO needs for its content."""
    (one, _, whole), (first, points, joined), (second, others, rest) = (
        steps[n][str(case)] for n in ("1-0", "2-0", "2-1")
    )
    assert one.keys() == first.keys()
    assert any(name.startswith("projection.") for name in one) == (case.family == "dino")
    for name in one:
        assert torch.equal(first[name], second[name]), name  # one sum, sent to both processes
        torch.testing.assert_close(first[name], one[name], atol=1e-5, rtol=1e-4)
    (general, specific), (other_general, other_specific) = (
        p.split([4, 6], dim=1) for p in (points, others)
    )
    assert not torch.equal(general, other_general)
    if case.family == "dab_detr":  # DINO's specific points are proposals, which differ by image
        assert torch.equal(specific, other_specific)
    assert not rest, "the figures of all processes are logged by the first one"
    assert joined["gradient_ratio"] > 0
    gap = {name: value for name, value in whole.items() if name.startswith("gap_specific/")}
    assert len(gap) == 6
    assert {name: joined[name] for name in gap} == pytest.approx(gap, rel=1e-4)


def test_a_record_with_answers_for_the_images_of_one_process_only(steps):
    one, first, second = (steps[n][str(RECORDED)][0] for n in ("1-0", "2-0", "2-1"))
    for name in one:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], one[name], atol=1e-5, rtol=1e-4)


def test_denoising_in_two_processes_of_which_one_has_no_boxes(steps):
    (first, *_), (second, *_) = (steps[name][str(DENOISING)] for name in ("2-0", "2-1"))
    assert "student.denoising.label_embedding.weight" in first
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]) and gradient.isfinite().all(), name


def test_two_processes_with_their_batches_in_parts_have_the_gradients_of_the_whole(steps):
    """One process takes the four images at once, and two processes take them one by one."""
    whole, first, second = (steps[f"parts-{name}"] for name in ("1-0", "2-0", "2-1"))
    size = torch.stack([gradient.norm() for gradient in whole.values()]).norm()
    for name, gradient in whole.items():
        assert torch.equal(first[name], second[name]), name
        assert (first[name] - gradient).norm() <= 1e-5 * size, name


def test_the_end_of_a_distillation_leaves_its_projection_alone(steps):
    for name, change in steps["stopped-2-0"].items():
        assert torch.equal(change, steps["stopped-2-1"][name]), name
        assert name.startswith("projection.") != bool(change.any()), name
