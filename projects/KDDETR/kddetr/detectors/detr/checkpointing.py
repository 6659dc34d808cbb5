"""Activation checkpointing: layers are computed again in the backward pass, to save memory."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, *inputs, recompute: bool) -> Tensor:
    """``layer(*inputs)``. With ``recompute`` only the inputs are kept for the backward pass, where
    the layer is computed again, with the same results and random numbers (Chen et al., 2016).
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
