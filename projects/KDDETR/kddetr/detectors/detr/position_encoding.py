"""Sine embeddings of feature-map cells and of boxes.

Several coordinate orders are in use in the field and are part of a checkpoint's meaning: cells are
(y, x), boxes are (y, x, w, h) in DAB-DETR and DINO decoders and (x, y, w, h) where two-stage
Deformable DETR makes queries of proposals.
"""

import math

import torch
from torch import Tensor, nn


def sine_features(phase: Tensor, features: int, temperature: float) -> Tensor:
    """Alternating sine and cosine of a phase at geometrically falling frequencies.

    Args:
        phase: (...) in radians.
        features: how many per coordinate.

    Returns:
        (..., features): sin, cos, sin, cos, ...
    """
    index = torch.arange(features, dtype=torch.float32, device=phase.device)
    period = temperature ** (2 * torch.div(index, 2, rounding_mode="floor") / features)
    angle = phase[..., None] / period
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(-2)


class ImageSineEmbedding(nn.Module):
    """Position of each cell inside the valid part of its feature map (Carion et al., DETR).

    Args:
        features: per coordinate; the embedding is twice as wide.
        temperature: 20 in DAB-DETR and DINO, 10000 in Deformable DETR.
        offset: added to the cell count before normalising; 0 in DAB-DETR, -0.5 in Deformable DETR.
    """

    def __init__(self, *, features: int, temperature: float, offset: float = 0.0) -> None:
        super().__init__()
        self.features = features
        self.temperature = temperature
        self.offset = offset

    def forward(self, padding: Tensor) -> Tensor:
        """(B, H, W) bool, True on padding, to (B, H, W, 2 * features): y features, then x.

        Padded cells hold numbers without a meaning.
        """
        valid = (~padding).float()
        coordinates = []
        for axis in (1, 2):
            count = valid.cumsum(axis)
            total = count.narrow(axis, count.shape[axis] - 1, 1)
            coordinates.append((count + self.offset) / (total + 1e-6) * (2 * math.pi))
        return torch.cat(
            [sine_features(c, self.features, self.temperature) for c in coordinates], dim=-1
        )


def anchor_sine_embedding(boxes: Tensor, features: int, *, temperature: float = 10000.0) -> Tensor:
    """Sine embedding of anchors in the order y, x, w, h (DAB-DETR, DINO decoder).

    Args:
        boxes: (..., 2) cx, cy or (..., 4) ``cxcywh`` in [0, 1].
        features: per coordinate.

    Returns:
        (..., 2 * features) or (..., 4 * features).
    """
    order = [1, 0, 2, 3][: boxes.shape[-1]]
    phase = boxes[..., order].float() * (2 * math.pi)
    return sine_features(phase, features, temperature).flatten(-2)


def proposal_sine_embedding(
    boxes: Tensor, features: int, *, temperature: float = 10000.0
) -> Tensor:
    """Sine embedding of proposals in the order x, y, w, h (two-stage Deformable DETR).

    Args:
        boxes: (..., 4) ``cxcywh`` in [0, 1].
        features: per coordinate.

    Returns:
        (..., 4 * features).
    """
    phase = boxes.float() * (2 * math.pi)
    return sine_features(phase, features, temperature).flatten(-2)
