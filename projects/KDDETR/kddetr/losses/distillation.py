"""The distillation loss: every student layer against the teacher's last, at shared points,
weighted by how much of an object the teacher sees there (KD-DETR, section 3.2).

Shape letters: L student layers, B images, N points, K classes.
"""

import torch
from torch import Tensor, nn

from ..boxes import IOU_EPS
from ..parallel import mean_over_processes
from ..structures import Predictions, Queries, UsageError
from .gaps import bce_gap, giou_gap, kl_background_gap, kl_gap, l1_gap

CLASS_WEIGHTS = {"weighted_mean": 10.0, "published": 1.0}
CLASS_GAPS = {"kl": kl_gap, "kl_background": kl_background_gap, "bce": bce_gap}
# A teacher can be so sure of background everywhere that its weights vanish in float32.
LEAST_WEIGHT = 1e-30


def foreground_weight(teacher: Predictions) -> Tensor:
    """The teacher's highest class probability in its last layer, (B, N) in (0, 1)."""
    return teacher.logits[-1].detach().float().sigmoid().amax(-1)


class DistillationLoss(nn.Module):
    """Class and box gaps of each group of points, summed over the student's layers.

    How points are reduced to one number is the one place where this project's default differs from
    the published code:

    - ``"weighted_mean"``: sum(w * gap) / sum(w) for every term, over all images of all processes.
      It does not grow with the batch, the points or the processes, so weights keep their meaning
      when a config is moved to other hardware. A mean over the classes at T = 10 makes the KL
      small beside the box terms, hence its weight of 10, which is what the toy data like.
    - ``"published"``: the same for the box terms, but the class term is sum(w * gap), not divided
      by anything: it doubles with the images a process holds and with the number of points. Without
      foreground weights the published code takes the mean of it. Every process is by itself.

    Args:
        class_weight: of the KL; default 10, in the published reduction 1.
        box_weight, giou_weight: of L1 and GIoU.
        temperature: T of the KL; published 10.
        foreground: weigh points by :func:`foreground_weight`; else all alike.
        reduction: see above.
        class_gap: "kl", as published, over the K foreground classes; "kl_background", over these
            and background; "bce", class by class, for teachers that end in sigmoids (a softmax is
            no set of independent classes).
        eps: of the GIoU.

    Raises:
        ValueError: an unknown reduction or class gap.
        UsageError: when asked about a single class, whose KL is always 0.
    """

    def __init__(
        self,
        *,
        class_weight: float | None = None,
        box_weight: float = 5.0,
        giou_weight: float = 2.0,
        temperature: float = 10.0,
        foreground: bool = True,
        reduction: str = "weighted_mean",
        class_gap: str = "kl",
        eps: float = IOU_EPS,
    ) -> None:
        super().__init__()
        if reduction not in CLASS_WEIGHTS:
            raise ValueError(
                f"Unknown reduction {reduction!r}: use one of {', '.join(CLASS_WEIGHTS)}."
            )
        if class_gap not in CLASS_GAPS:
            raise ValueError(
                f"Unknown class_gap {class_gap!r}: use one of {', '.join(CLASS_GAPS)}."
            )
        if class_weight is None:
            class_weight = CLASS_WEIGHTS[reduction]
        self.weights = {"class": class_weight, "bbox": box_weight, "giou": giou_weight}
        self.temperature = temperature
        self.foreground = foreground
        self.reduction = reduction
        self.class_gap = CLASS_GAPS[class_gap]
        self.eps = eps

    def forward(
        self, student: Predictions, teacher: Predictions, points: Queries
    ) -> dict[str, Tensor]:
        """Weighted losses by name, ``kd_{group}/class``, ``.../bbox`` and ``.../giou``.

        Args:
            student: answers of all its layers at the points.
            teacher: answers at the same points; only the last layer counts.
            points: whose ``groups`` say which points are taken together.
        """
        losses = {}
        teacher = teacher.last().detach()
        theirs = teacher.split(points.groups)
        for group, mine in student.split(points.groups).items():
            for term, value in self.terms(mine, theirs[group]).items():
                losses[f"kd_{group}/{term}"] = self.weights[term] * value.sum()
        return losses

    def terms(self, student: Predictions, teacher: Predictions) -> dict[str, Tensor]:
        """Unweighted terms of one group, one value a student layer, (L,) each."""
        teacher = teacher.last().detach()
        if student.logits.shape[-1] == 1 and self.class_gap is kl_gap and self.weights["class"]:
            raise UsageError(
                "The KL over one class is always 0, so that no class would be distilled: set"
                " model.loss.class_gap to kl_background or bce."
            )
        top = teacher.logits[-1].argmax(-1)
        teacher, student = teacher.of_classes(top), student.of_classes(top)
        gaps = {
            "class": self.class_gap(student.logits, teacher.logits, temperature=self.temperature),
            "bbox": l1_gap(student.boxes, teacher.boxes),
            "giou": giou_gap(student.boxes, teacher.boxes, eps=self.eps),
        }
        weight = foreground_weight(teacher)
        if not self.foreground:
            weight = torch.ones_like(weight)
        published = self.reduction == "published"
        # The published code knows of no other process than its own.
        total = weight.sum() if published else mean_over_processes(weight.sum())
        total = total.clamp(min=LEAST_WEIGHT)
        sums = {term: (gap * weight).sum((1, 2)) for term, gap in gaps.items()}
        return {
            term: value if published and self.foreground and term == "class" else value / total
            for term, value in sums.items()
        }
