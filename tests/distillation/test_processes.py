"""Two processes together learn what one learns, each from points of its own."""

import pytest
import torch

from kddetr.engine import launch
from tests.distillation.processes import gradients


@pytest.mark.parametrize("boxes", [(3, 1), (3, None)])
def test_two_processes_have_the_gradients_of_one(tmp_path, boxes):
    """Also where one of them has no labelled image."""
    for processes in (1, 2):
        launch(
            gradients, processes=processes, device=torch.device("cpu"), args=(str(tmp_path), boxes)
        )
    one, _ = torch.load(tmp_path / "1-0.pth")
    (first, points), (second, others) = (torch.load(tmp_path / f"2-{r}.pth") for r in (0, 1))
    assert one.keys() == first.keys()
    for name in one:
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], one[name], atol=1e-5, rtol=1e-4)
    general, specific = points.split([4, 6], dim=1)
    other_general, other_specific = others.split([4, 6], dim=1)
    assert torch.equal(specific, other_specific)
    assert not torch.equal(general, other_general)
