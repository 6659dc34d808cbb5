"""Teacher and student agree on the points of images with fewer tokens than queries."""

import pytest
import torch

from kddetr import KDDETR
from kddetr.losses import WeightedMeanLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from tests.tiny import FAMILIES, tiny_batch, tiny_detector


@pytest.mark.parametrize("sizes", [((1, 1),), ((1, 1), (1, 50)), ((3, 90), (40, 56))], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_points_of_odd_images_give_finite_gaps(family, sizes):
    model = KDDETR(
        student=tiny_detector(family, seed=1),
        teacher=tiny_detector(family, seed=2),
        sampler=JointSampler(samplers=[GeneralSampler(count=4), SpecificSampler()]),
        loss=WeightedMeanLoss(),
    ).train()
    losses = model(tiny_batch(sizes, boxes=(2, 0)[: len(sizes)]))
    assert all(torch.isfinite(value) for value in losses.values()), losses
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
