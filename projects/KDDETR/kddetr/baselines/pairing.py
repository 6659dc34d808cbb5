"""Controls: the student's own queries are paired with the teacher's own, without shared points.

Shape letters: L decoder layers, B images, N queries, K classes, T answers of the teacher, P pairs.
"""

import torch
from torch import Tensor, nn

from ..boxes import box_giou
from ..detectors.detr.matcher import HungarianMatcher, Target
from ..errors import UsageError
from ..losses import WeightedMeanLoss
from ..predictions import LAST
from ..structures import EncodedDetector, Layers, Predictions, Queries, compared_layers
from .truth import encoded_of


class NoPoints:
    """A sampler of zero points, for losses that compare something else."""

    def __call__(self, teacher: EncodedDetector, student: EncodedDetector) -> Queries:
        """(B, 0, ...) queries in one group called "none"."""
        return teacher.queries().first(0).named("none").detach()


class IndexPairing(nn.Module):
    """The student's own query i is compared with the teacher's own query i.

    The two lie at different places, because each detector has learned its own queries. The DINO
    distillation of NVIDIA TAO pairs predictions in this way. The images are not encoded again, but
    the student decodes its own queries a second time. Take :class:`NoPoints` as the sampler.

    Args:
        loss: compares the pairs; default :class:`~kddetr.losses.WeightedMeanLoss`. It may say which
            layers it compares.
    """

    student_layers = teacher_layers = LAST  # of the predictions at the points, which are not used

    def __init__(self, *, loss: nn.Module | None = None) -> None:
        super().__init__()
        self.loss = loss or WeightedMeanLoss()

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """The losses of the pairs, one group called "paired"; ``points`` are not used.

        Raises:
            UsageError: the pairing is not possible.
        """
        of_student, of_teacher = compared_layers(self.loss)
        ours = own_predictions(encoded_of(student, self), of_student)
        with torch.no_grad():
            theirs = own_predictions(encoded_of(teacher, self), of_teacher)
        ours, theirs = self.pair(ours, theirs)
        places = theirs.boxes[-1]
        losses: dict[str, Tensor] = self.loss(
            ours, theirs, Queries(places, groups={"paired": places.shape[1]})
        )
        return losses

    def pair(self, student: Predictions, teacher: Predictions) -> tuple[Predictions, Predictions]:
        """The predictions of both, so that those with the same index belong together.

        Raises:
            UsageError: the two have different numbers of queries.
        """
        ours, theirs = student.logits.shape[2], teacher.logits.shape[2]
        if ours != theirs:
            raise UsageError(
                f"The student has {ours} queries and the teacher {theirs}, so they cannot be paired"
                " by their index: set num_queries of the student to that of the teacher, or take"
                " HungarianPairing."
            )
        return student, teacher


class HungarianPairing(IndexPairing):
    """The teacher's answers at its own queries are matched with the student's own predictions.

    This is the logit part of DETRDistill (Chang et al., ICCV 2023), and ``loss_kd_logits`` is an
    option of the published KD-DETR code. One assignment, computed from the last layer of both,
    serves for all layers. DETRDistill matches the teacher's positive and negative answers each by
    themselves and every layer anew; here background answers are told apart by the weighting of the
    loss. The host waits for the device once more in a step, for the matching.

    The assignment has the lowest sum of 2 * class + 5 * L1 - 2 * GIoU, where the class cost is the
    distance of the probabilities of all classes, because answers are no single classes. Where one
    detector has more queries than the other, the queries left over are not compared.

    Args:
        loss: see :class:`IndexPairing`.
    """

    def pair(self, student: Predictions, teacher: Predictions) -> tuple[Predictions, Predictions]:
        """The (L, B, P, ...) predictions of the pairs."""
        last = teacher.last().detach()
        answers = [
            Target(labels=logits.float().sigmoid(), boxes=boxes.float())
            for logits, boxes in zip(last.logits[0], last.boxes[0], strict=True)
        ]
        found = AnswerMatcher()(student.last().detach(), answers)
        images = len(answers)  # each has the same number of pairs, in the order of the images
        ours, theirs = found.query.view(images, -1), found.target.view(images, -1)
        return student.of_queries(ours), teacher.of_queries(theirs)


class AnswerMatcher(HungarianMatcher):
    """A :class:`HungarianMatcher` of answers, which have a probability of every class.

    The ``labels`` of a target are (T, K) probabilities.
    """

    def costs(self, logits: Tensor, boxes: Tensor, target: Target) -> tuple[Tensor, ...]:
        """Unweighted class, L1 and (negative) GIoU costs of one image, (L, N, T) each."""
        classes = (logits.float().sigmoid()[..., None, :] - target.labels).abs().sum(-1)
        boxes = boxes.float()[..., None, :]
        l1 = (boxes - target.boxes).abs().sum(-1)
        return classes, l1, -box_giou(boxes, target.boxes, eps=self.eps)


def own_predictions(encoded: EncodedDetector, layers: Layers) -> Predictions:
    """What a detector predicts at its own queries."""
    return encoded.decode(encoded.queries(), layers=layers)
