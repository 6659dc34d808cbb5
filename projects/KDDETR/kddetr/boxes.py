"""Box arithmetic on normalised ``cxcywh`` boxes, as pure functions.

The shared frame of the whole project is the unit square of each *unpadded* image, so a box means
the same to every detector whatever it resized, padded or strided.
"""

import torch
from torch import Tensor

# Added to the union and to the hull by DAB-DETR, DINO, detrex and the published KD-DETR code.
IOU_EPS = 1e-6


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre form to corner form.

    Args:
        boxes: (..., 4) cx, cy, w, h in any unit.

    Returns:
        (..., 4) x0, y0, x1, y1 in the same unit.
    """
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corner form to centre form, (..., 4) to (..., 4)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def box_iou(a: Tensor, b: Tensor, *, eps: float = IOU_EPS) -> Tensor:
    """Intersection over union of corresponding boxes.

    Args:
        a, b: broadcastable (..., 4) ``cxcywh``; ``a[:, None], b[None]`` gives the pairwise matrix.
        eps: added to the union.

    Returns:
        (...) in [0, 1].
    """
    a, b = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    intersection, union = _overlap(a, b)
    return intersection / (union + eps)


def box_giou(a: Tensor, b: Tensor, *, eps: float = IOU_EPS) -> Tensor:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of corresponding boxes.

    torchvision's version has no ``eps``, which the DAB-DETR line adds to union and hull (and the
    Deformable DETR project does not: ``eps=0``), and computes all pairs where the losses need the
    diagonal only.

    Args:
        a, b: broadcastable (..., 4) ``cxcywh``.
        eps: added to the union and to the hull.

    Returns:
        (...) in [-1, 1].
    """
    a, b = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    intersection, union = _overlap(a, b)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return intersection / (union + eps) - (hull - union) / (hull + eps)


def inverse_sigmoid(p: Tensor, *, eps: float = 1e-3) -> Tensor:
    """The clamped logit of a probability.

    Args:
        p: any shape; values outside [0, 1] are clamped.
        eps: smallest value of p and of 1 - p. 1e-3 in DAB-DETR, DINO and detrex, 1e-5 in the
            Deformable DETR project.

    Returns:
        logits of the same shape, within +-log(1 / eps).
    """
    p = p.clamp(0, 1)
    return torch.log(p.clamp(min=eps) / (1 - p).clamp(min=eps))


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union areas of broadcastable (..., 4) ``xyxy`` boxes."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)
    return intersection, area_a + area_b - intersection
