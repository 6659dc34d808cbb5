"""Activation checkpointing: layers are computed again in the backward pass, to save memory."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def run_layer(layer: nn.Module, *inputs, recompute: bool) -> Tensor:
    """``layer(*inputs)``, by activation checkpointing (Chen et al., 2016) where asked.

    Args:
        layer: the layer.
        inputs: its inputs.
        recompute: keep only the inputs for the backward pass and compute the layer again there. The
            results and the random numbers are the same.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
