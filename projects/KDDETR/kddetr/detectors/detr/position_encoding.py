"""Sine embeddings of feature-map cells and of boxes.

Trained weights work with one order of the coordinates only, and the published models differ: cells
are embedded as y, x; boxes as y, x, w, h in the decoders of DAB-DETR and DINO, and as x, y, w, h
where two-stage Deformable DETR makes queries from proposals.
"""

import math

import torch
from torch import Tensor, nn


def sine_features(phase: Tensor, features: int, temperature: float) -> Tensor:
    """Sines and cosines of a phase (...) in radians, at frequencies that fall geometrically from 1
    to nearly 1 / temperature: (..., features), in the order sin, cos, sin, cos, ...
    """
    index = torch.arange(features, dtype=torch.float32, device=phase.device)
    period = temperature ** (2 * (index // 2) / features)
    angle = phase[..., None] / period
    return torch.stack([angle[..., 0::2].sin(), angle[..., 1::2].cos()], dim=-1).flatten(-2)


class ImageSineEmbedding(nn.Module):
    """Sine embedding of each cell's position in the unpadded image (Carion et al., DETR).

    Args:
        features: per coordinate; the embedding is twice as wide.
        temperature: of :func:`sine_features`; 20 in DAB-DETR and DINO, 10000 in Deformable DETR.
        offset: added to the number of a cell, counted from 1, before it is divided by the number of
            cells; 0 in DAB-DETR and DINO, -0.5 (the cell's centre) in Deformable DETR.
    """

    def __init__(self, *, features: int, temperature: float, offset: float = 0.0) -> None:
        super().__init__()
        self.features = features
        self.temperature = temperature
        self.offset = offset

    def forward(self, padding: Tensor) -> Tensor:
        """(B, H, W) bool, True on padding, to (B, H, W, 2 * features): y features, then x features.

        The embedding of a padded cell has no meaning.
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


def box_sine_embedding(
    boxes: Tensor, features: int, *, y_first: bool, temperature: float = 10000.0
) -> Tensor:
    """Sine embedding of boxes or points, (..., 4 * features) or (..., 2 * features).

    Args:
        boxes: (..., 4) ``cxcywh`` or (..., 2) cx, cy in [0, 1].
        features: per coordinate.
        y_first: the order of the coordinates is y, x, w, h (decoders of DAB-DETR and DINO);
            otherwise x, y, w, h (proposals of two-stage Deformable DETR).
        temperature: of :func:`sine_features`.
    """
    if y_first:
        x, y, *size = boxes.unbind(-1)
        boxes = torch.stack([y, x, *size], dim=-1)
    phase = boxes.float() * (2 * math.pi)
    return sine_features(phase, features, temperature).flatten(-2)
