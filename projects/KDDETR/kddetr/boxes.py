"""Box arithmetic on normalised ``cxcywh`` boxes, as pure functions.

All boxes of the project are in [0, 1] of each *unpadded* image, so a box means the same to every
detector, however it resizes and pads the image and whatever its strides are.
"""

import torch
from torch import Tensor
from torchvision.ops import box_convert

# Added to the union and to the hull by DAB-DETR, DINO, detrex and the published KD-DETR code.
IOU_EPS = 1e-6


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size to corners, (..., 4) to (..., 4), in any unit."""
    corners: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return corners


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners to centre and size, (..., 4) to (..., 4), in any unit."""
    centres: Tensor = box_convert(boxes, "xyxy", "cxcywh")
    return centres


def box_iou(a: Tensor, b: Tensor, *, eps: float = IOU_EPS) -> Tensor:
    """Intersection over union of corresponding boxes.

    Args:
        a, b: broadcastable (..., 4) ``cxcywh``; ``a[:, None], b[None]`` gives the pairwise matrix.
        eps: added to the union.

    Returns:
        (...), in [0, 1] for widths and heights of at least 0.
    """
    intersection, union = _overlap(cxcywh_to_xyxy(a), cxcywh_to_xyxy(b))
    return intersection / (union + eps)


def box_giou(a: Tensor, b: Tensor, *, eps: float = IOU_EPS) -> Tensor:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of corresponding boxes.

    The versions of libraries do not fit here. torchvision's pairwise one has no ``eps``, which
    DAB-DETR and its successors add to union and hull. The losses of torchvision and fvcore wait for
    the device once per call, and fvcore's checks its boxes with an assertion on every call.

    Args:
        a, b: broadcastable (..., 4) ``cxcywh``.
        eps: added to the union and to the hull; 0 in the Deformable DETR project.

    Returns:
        (...), in [-1, 1] for widths and heights of at least 0.
    """
    a, b = cxcywh_to_xyxy(a), cxcywh_to_xyxy(b)
    intersection, union = _overlap(a, b)
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return intersection / (union + eps) - (hull - union) / (hull + eps)


def inverse_sigmoid(p: Tensor, *, eps: float = 1e-3) -> Tensor:
    """The logit of a probability, clamped.

    Args:
        p: any shape; values outside [0, 1] are clamped.
        eps: smallest value of p and of 1 - p: 1e-3 in DAB-DETR, DINO and detrex, 1e-5 in the
            Deformable DETR project.

    Returns:
        logits of the same shape, between -log(1 / eps) and log(1 / eps).
    """
    p = p.clamp(0.0, 1.0)
    return torch.log(p.clamp(min=eps) / (1 - p).clamp(min=eps))


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union areas of broadcastable (..., 4) ``xyxy`` boxes."""
    low = torch.maximum(a[..., :2], b[..., :2])
    high = torch.minimum(a[..., 2:], b[..., 2:])
    intersection = (high - low).clamp(min=0).prod(-1)
    area_a = (a[..., 2:] - a[..., :2]).prod(-1)
    area_b = (b[..., 2:] - b[..., :2]).prod(-1)
    return intersection, area_a + area_b - intersection
