"""Feature imitation: the student's feature maps become like the teacher's.

Shape letters: B images, C channels, H and W of a map, T objects of an image.
"""

import torch
from torch import Tensor, nn

from ..boxes import cxcywh_to_xyxy
from ..errors import UsageError
from ..predictions import LAST
from ..ranges import not_negative, one_of, whole
from ..structures import EncodedDetector, Predictions, Queries
from ..transfer import to_device
from .truth import encoded_of, ground_truth

EPS = 1e-6  # added to a standard deviation, as in the public code of PKD


class FeatureImitation(nn.Module):
    """PKD (Cao et al., NeurIPS 2022): half the mean squared difference of standardised maps.

    Each channel of a map has mean 0 and standard deviation 1 over the batch, so the loss is 1 minus
    the Pearson correlation of student and teacher, averaged over the channels. It is summed over
    the feature levels. In a padded batch, cells outside of an image take part.

    With ``objects``, the cells are weighted by the ground truth as in CLoCKDistill (Lan and Tian,
    WACV 2026): every object counts the same, whatever its size, and the background as much as one
    object. The exact masks of that paper, and the location that it adds to the memory, are not
    reproduced; the maps are standardised here too. The cells of unlabelled images have equal
    weights.

    PKD needs equal widths. Where they differ, a 1 x 1 convolution projects the student's channels.
    It is trained and kept for resuming, but is no part of the student.

    Args:
        maps: "neck" or "encoder", see :meth:`~kddetr.structures.EncodedDetector.feature_maps`.
        weight: of the loss, at least 0.
        student_channels, teacher_channels: C of the maps of each.
        objects: weight the cells by the ground truth; all images must have one size.

    Raises:
        ValueError: an argument is out of range.
    """

    student_layers = teacher_layers = LAST  # of the predictions at the points, which are not used

    def __init__(
        self,
        *,
        student_channels: int,
        teacher_channels: int,
        maps: str = "encoder",
        weight: float = 1.0,
        objects: bool = False,
    ) -> None:
        super().__init__()
        one_of(("neck", "encoder"), maps=maps)
        not_negative(weight=weight)
        whole(1, student_channels=student_channels, teacher_channels=teacher_channels)
        self.maps, self.weight, self.objects = maps, weight, objects
        self.projection: nn.Module = nn.Identity()
        if student_channels != teacher_channels:
            self.projection = nn.Conv2d(student_channels, teacher_channels, 1)

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """The loss ``kd_features/neck`` or ``kd_features/encoder``; the points are not used.

        Raises:
            UsageError: a detector does not give these maps, the maps are of other sizes or widths,
                or images of several sizes are to be weighted by their objects.
        """
        of_student = encoded_of(student, self)
        ours = [self.projection(m) for m in of_student.feature_maps(self.maps)]
        theirs = encoded_of(teacher, self).feature_maps(self.maps)
        shapes = [[tuple(m.shape[1:]) for m in maps] for maps in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"The student's maps have the shapes {shapes[0]}, (channels, height, width), and"
                f" the teacher's {shapes[1]}: give both detectors the same strides, and"
                " FeatureImitation the channels of both."
            )
        total = sum(
            (self._weights(of_student, a) * (standardised(a) - standardised(b)).square())
            .mean()
            .div(2)
            for a, b in zip(ours, theirs, strict=True)
        )
        return {f"kd_features/{self.maps}": self.weight * torch.as_tensor(total)}

    def _weights(self, encoded: EncodedDetector, like: Tensor) -> Tensor:
        """Weights of the cells with a mean of 1 in each image, (B, 1, H, W), or 1 for all."""
        if not self.objects:
            return like.new_ones(1)
        sizes = {tuple(x["image"].shape[-2:]) for x in encoded.inputs}
        if len(sizes) > 1:
            raise UsageError(
                f"The batch has images of the sizes {sorted(sizes)}, and objects=True needs one"
                " size: resize all images to one size, or set objects=False."
            )
        height, width = like.shape[-2:]
        weights = [
            torch.ones(height, width, device=like.device)
            if target is None
            else object_weights(target.boxes, height, width)
            for target in ground_truth(encoded, like.device)
        ]
        return torch.stack(weights)[:, None]


def standardised(maps: Tensor) -> Tensor:
    """(B, C, H, W) maps with mean 0 and standard deviation 1 of each channel over the batch."""
    maps = maps.float()
    deviation, mean = torch.std_mean(maps, (0, 2, 3), correction=0, keepdim=True)
    return (maps - mean) / (deviation + EPS)


def object_weights(boxes: Tensor, height: int, width: int) -> Tensor:
    """Weights of the cells of a map in which every object has the same sum, and the background too.

    Args:
        boxes: (T, 4) ``cxcywh`` in [0, 1]; an object has at least the cell of its centre.
        height, width: H, W of the map.

    Returns:
        (H, W) weights with a mean of 1.
    """
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    x, y = to_device(x, boxes.device), to_device(y, boxes.device)[:, None]
    cell = to_device(torch.tensor([1 / width, 1 / height]), boxes.device)
    sizes = torch.maximum(boxes[:, 2:], cell)
    x0, y0, x1, y1 = cxcywh_to_xyxy(torch.cat([boxes[:, :2], sizes], 1))[..., None, None].unbind(1)
    inside = ((x0 <= x) & (x <= x1) & (y0 <= y) & (y <= y1)).float()  # (T, H, W)
    background = (inside.sum(0) == 0).float()
    parts = torch.cat([inside, background[None]])
    sums = parts.sum((1, 2), keepdim=True)
    weights = (parts / sums.clamp(min=1)).sum(0)
    return weights / weights.mean()
