"""Bilinear sampling by gathers equals grid_sample, at the borders and beyond them too."""

import torch

from kddetr.detectors.detr import sampling


def test_gathers_equal_grid_sample_inside_at_the_border_and_outside():
    torch.manual_seed(0)
    shapes = [(5, 7), (3, 4), (1, 2)]
    tokens = sum(height * width for height, width in shapes)
    values = torch.randn(2, tokens, 4, 6)
    locations = torch.rand(2, 9, 4, 3, 2, 2) * 3 - 1  # two thirds of them are outside
    locations[:, :3] = torch.tensor([0.0, 1.0])
    weights = torch.rand(2, 9, 4, 3, 2)
    found = []
    for name in ("gather", "grid_sample"):
        inputs = [t.clone().requires_grad_() for t in (values, locations, weights)]
        with sampling.sampled_by(name):
            out = sampling.sample_values(inputs[0], shapes, inputs[1], inputs[2])
        out.square().sum().backward()
        found.append([out.detach(), inputs[0].grad, inputs[2].grad])
    for gather, grid_sample in zip(*found, strict=True):
        torch.testing.assert_close(gather, grid_sample, atol=1e-5, rtol=1e-5)


def test_a_point_that_is_no_number_or_far_away_reads_no_memory_outside_of_the_values():
    values = torch.ones(1, 4, 1, 1)
    for odd in (torch.nan, torch.inf, -torch.inf, 1e30):
        locations = torch.full((1, 1, 1, 1, 1, 2), odd)
        with sampling.sampled_by("gather"):
            out = sampling.sample_values(values, [(2, 2)], locations, torch.ones(1, 1, 1, 1, 1))
        assert out.isnan().all() if odd != odd else (out == 0).all()
