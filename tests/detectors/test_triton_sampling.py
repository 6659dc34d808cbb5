"""Triton's kernels of deformable attention against plain PyTorch.

On a CPU they run in Triton's interpreter, which tests/conftest.py chooses before Triton is
imported. On a GPU they run as they are.
"""

import logging

import pytest
import torch

from kddetr.detectors.detr import sampling
from kddetr.errors import UsageError

pytest.importorskip("triton", reason="Triton is not installed")
from kddetr.detectors.detr import triton_sampling

INTERPRETED = triton_sampling.is_interpreted()
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
# B, N, H, D, P, the levels, and how far the points spread: 1 is the size of the image.
CASES = {
    "odd sizes, partly outside": (2, 3, 2, 5, 2, [(5, 3), (2, 1)], 1.5),
    "wide heads": (1, 3, 1, 33, 1, [(4, 6), (3, 3), (1, 2)], 1.0),
    "more queries than a block": (1, 40, 1, 32, 1, [(6, 5)], 1.0),
    "far outside": (1, 2, 1, 1, 1, [(1, 1)], 1e9),
}
ODD = "odd sizes, partly outside"


def inputs(case=ODD, *, dtype=torch.float32):
    batch, queries, heads, depth, points, shapes, spread = CASES[case]
    generator = torch.Generator().manual_seed(0)
    tokens, levels = sum(h * w for h, w in shapes), len(shapes)
    values = torch.randn(batch, tokens, heads, depth, generator=generator)
    locations = torch.rand(batch, queries, heads, levels, points, 2, generator=generator)
    locations = 0.5 + (locations - 0.5) * spread
    weights = torch.rand(batch, queries, heads, levels, points, generator=generator)
    tensors = [values.to(dtype), locations, weights.to(dtype)]
    return [t.to(DEVICE).requires_grad_() for t in tensors], shapes


def results(name, tensors, shapes):
    values, locations, weights = tensors
    with sampling.sampled_by(name):
        out = sampling.sample_values(values, shapes, locations, weights)
    direction = torch.linspace(-1, 1, out.numel(), device=out.device).view(out.shape)
    return out, *torch.autograd.grad(out, tensors, direction)


@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_grid_sample(case):
    tensors, shapes = inputs(case)
    for found, expected in zip(
        results("triton", tensors, shapes), results("grid_sample", tensors, shapes), strict=True
    ):
        assert found.dtype == expected.dtype
        scale = max(1.0, expected.abs().max().item())
        torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=0)


def test_values_in_bfloat16_are_read_as_they_are():
    """Sums are in float32, so the difference is far below the 1e-2 of bfloat16's own rounding."""
    tensors, shapes = inputs(dtype=torch.bfloat16)
    for found, expected in zip(
        results("triton", tensors, shapes), results("grid_sample", tensors, shapes), strict=True
    ):
        assert found.dtype == expected.dtype
        limit = 1e-5 if found.dtype is torch.float32 else 1e-2
        torch.testing.assert_close(found, expected, atol=limit, rtol=limit)


def test_frozen_values_and_no_queries():
    (values, locations, weights), shapes = inputs()
    with sampling.sampled_by("triton"):
        out = sampling.sample_values(values.detach(), shapes, locations, weights)
        assert torch.autograd.grad(out.sum(), weights)[0].abs().sum() > 0
        none = sampling.sample_values(values, shapes, locations[:, :0], weights[:, :0])
    assert none.shape == (2, 0, 10)


def test_nan_is_not_hidden():
    (values, locations, weights), shapes = inputs()
    locations = locations.detach().clone()
    locations[0, 0, 0, 0, 0, 0] = float("nan")
    with sampling.sampled_by("triton"):
        out = sampling.sample_values(values, shapes, locations, weights)
    assert out[0, 0, :5].isnan().all() and out[0, 1:].isfinite().all()


def test_on_a_cpu_the_kernels_are_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(triton_sampling, "is_interpreted", lambda: False)
    (values, locations, weights), shapes = inputs()
    with sampling.sampled_by("triton"), pytest.raises(UsageError, match="TRITON_INTERPRET=1"):
        sampling.sample_values(values.cpu(), shapes, locations.cpu(), weights.cpu())


def test_which_implementation_is_taken(monkeypatch, caplog):
    """The library where it runs, otherwise Triton on a GPU, otherwise plain PyTorch."""
    monkeypatch.setattr(torch, "ones", lambda *_, **__: None)
    monkeypatch.setattr(torch, "full", lambda *_, **__: torch.zeros(1))
    runs = {"library", "triton"}

    def pretend(name):
        def call(*_):
            if name not in runs:
                raise RuntimeError(f"no {name} here")

        return call

    for name in ("library", "triton"):
        monkeypatch.setitem(sampling.IMPLEMENTATIONS, name, pretend(name))
    fastest = sampling._fastest.__wrapped__
    monkeypatch.setattr(torch.Tensor, "__getitem__", lambda *_: None)
    assert (fastest("cuda"), fastest("cpu")) == ("library", "library")
    runs.discard("library")
    with caplog.at_level(logging.INFO, logger="kddetr"):
        assert (fastest("cuda"), fastest("cpu")) == ("triton", "grid_sample")
    assert "plain PyTorch (library: no library here)" in caplog.text
    runs.clear()
    assert fastest("cuda") == "grid_sample"
