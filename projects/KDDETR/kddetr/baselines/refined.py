"""Refined targets: the teacher's answers are corrected by the ground truth before they are taught.

Shape letters: L layers of the teacher, B images, N points, K classes, P matched points.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..boxes import box_iou
from ..detectors.detr.matcher import HungarianMatcher, Matches, Target
from ..errors import UsageError
from ..structures import DistillationLoss, Predictions, Queries, compared_layers
from .truth import encoded_of, ground_truth


class RefinedTargets(nn.Module):
    """Another loss whose targets are refined as in the public code of TPRD (2026).

    The teacher's answers at the points are matched with the ground truth, layer by layer. A matched
    answer takes box and score of its object's class from an earlier layer where both the IoU with
    the object and this score are better there. An answer that matches no object takes the lowest
    score that an earlier layer had for the same most likely class. Images without objects, and
    unlabelled ones, keep the teacher's answers.

    All points that it is called with are matched together; inside of
    :class:`~kddetr.losses.ByGroup` these are the points of a group. The host waits for the device a
    few times more in a step, for the matching.

    Args:
        loss: compares the student with the refined answers of all layers or of the last one. In
            TPRD each layer of the student is compared with the refined layer of the same number,
            which is ``RefinedTargets(LayerByLayer(loss))``. The reverse order refines nothing.
    """

    teacher_layers = None

    def __init__(self, loss: DistillationLoss) -> None:
        super().__init__()
        self.loss = loss
        self.student_layers, _ = compared_layers(loss)

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """The losses of the inner loss; all layers of the teacher are needed.

        Raises:
            UsageError: the teacher's predictions are those of a single layer.
        """
        if teacher.num_layers == 1:
            raise UsageError(
                "RefinedTargets corrects the teacher's answers by those of its earlier layers, and"
                " got a single layer: write RefinedTargets(LayerByLayer(loss)) instead of the"
                " reverse, and take a teacher with several decoder layers."
            )
        targets = ground_truth(encoded_of(teacher, self), teacher.logits.device)
        return self.loss(student, refined(teacher, targets), points)


def refined(teacher: Predictions, targets: Sequence[Target | None]) -> Predictions:
    """The (L, B, N, ...) predictions, each layer refined by itself and the layers before it.

    Args:
        teacher: predictions of all layers.
        targets: of each image; None: unlabelled.
    """
    known = {i: t for i, t in enumerate(targets) if t is not None and len(t.labels)}
    if not known:
        return teacher
    images, objects = list(known), list(known.values())
    part = replace(teacher, logits=teacher.logits.float(), boxes=teacher.boxes.float())
    part = part.of_images(images)
    matches = HungarianMatcher()(part, objects)
    logits, boxes = teacher.logits.float().clone(), teacher.boxes.float().clone()
    for layer in range(teacher.num_layers):
        found = refined_layer(part, layer, _of_layer(matches, layer), objects)
        logits[layer, images], boxes[layer, images] = found
    return replace(teacher, logits=logits, boxes=boxes)


def refined_layer(
    teacher: Predictions, layer: int, matches: Matches, objects: Sequence[Target]
) -> tuple[Tensor, Tensor]:
    """Logits (B, N, K) and boxes (B, N, 4) of a layer, refined by the layers before it.

    Args:
        teacher: (L, B, N, ...) of images that all have objects.
        layer: its number.
        matches: of this layer.
        objects: of each image.
    """
    all_logits, all_boxes = teacher.logits[: layer + 1], teacher.boxes[: layer + 1]
    top, best = all_logits.max(-1)
    lower = torch.where((best == best[-1]) & (top < top[-1]), top, top[-1]).amin(0)
    logits = all_logits[-1].scatter(-1, best[-1][..., None], lower[..., None])
    boxes = all_boxes[-1].clone()

    at = matches.image, matches.query
    labels = pad_sequence([t.labels for t in objects], batch_first=True)
    places = pad_sequence([t.boxes for t in objects], batch_first=True)
    label, place = (x[matches.image, matches.target] for x in (labels, places))  # (P,), (P, 4)
    iou = box_iou(all_boxes[:, at[0], at[1]], place)  # (layers, P)
    score = all_logits[:, at[0], at[1]].gather(-1, label.expand(len(iou), -1)[..., None])[..., 0]
    better = (iou > iou[-1]) & (score > score[-1])
    chosen = torch.where(better, iou, -1.0).argmax(0)
    chosen = torch.where(better.any(0), chosen, layer)
    logits[at] = all_logits[-1][at]
    logits[at[0], at[1], label] = all_logits[chosen, at[0], at[1], label]
    boxes[at] = all_boxes[chosen, at[0], at[1]]
    return logits, boxes


def _of_layer(matches: Matches, layer: int) -> Matches:
    chosen = matches.layer == layer
    parts = (matches.layer, matches.image, matches.query, matches.target)
    return Matches(*(x[chosen] for x in parts))
