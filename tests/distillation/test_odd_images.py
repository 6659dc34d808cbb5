"""Distillation of images that are so small that they have fewer tokens than queries."""

import pytest
import torch

from tests.tiny import FAMILIES, tiny_batch, tiny_detector, tiny_distiller


@pytest.mark.parametrize("sizes", [((1, 1),), ((1, 1), (1, 50)), ((3, 90), (40, 56))], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_of_odd_images_are_finite(family, sizes):
    model = tiny_distiller(tiny_detector(family, seed=1), tiny_detector(family, seed=2))
    losses = model(tiny_batch(sizes, boxes=(2, 0)[: len(sizes)]))
    assert all(torch.isfinite(value) for value in losses.values()), losses
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
