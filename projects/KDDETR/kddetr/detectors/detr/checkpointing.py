"""Activation checkpointing: memory of one layer at a time, for a second forward pass of each."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, *inputs, recompute: bool) -> Tensor:
    """``layer(*inputs)``; with ``recompute`` nothing inside is kept for the backward pass.

    Numbers and random draws are the same either way (Chen et al., 2016).
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
