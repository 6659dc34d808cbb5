"""KD-DETR (Wang et al., CVPR 2024): ask a frozen teacher and a trainable student the same extra
queries, and add the gap between their answers to the student's loss.
"""

from dataclasses import replace
from typing import Any

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from .structures import (
    Answerer,
    Detector,
    Encoded,
    Placement,
    PointSampler,
    Predictions,
    Queries,
    UsageError,
)


class ContentProjection(nn.ModuleDict):
    """Carries the learned parts of a teacher's queries to a student's width."""

    @classmethod
    def between(cls, teacher: Answerer, student: Detector) -> "ContentProjection | None":
        """None where nothing has to be projected: equal widths, or one of them has boxes alone."""
        theirs, ours = teacher.query_parts, student.query_parts
        different = [n for n in theirs if n in ours and theirs[n] != ours[n]]
        return cls({n: nn.Linear(theirs[n], ours[n]) for n in different}) if different else None

    def forward(self, points: Queries) -> Queries:
        """The same points with (B, N, teacher's C) parts as (B, N, student's C)."""
        return replace(points, **{n: project(getattr(points, n)) for n, project in self.items()})


@META_ARCH_REGISTRY.register()
class KDDETR(nn.Module):
    """The Detectron2 meta-architecture that trains a student beside its teacher.

    The teacher is present but not ours to train or save: always in eval mode, without gradients,
    absent from ``parameters()``, ``modules()`` and ``state_dict()``, hence from the optimiser, from
    DistributedDataParallel and from every checkpoint; ``.to()`` moves it along. What is saved,
    evaluated and shipped is :attr:`deployable`, the student itself.

    Args:
        student: the detector to train.
        teacher: a trained detector, see :func:`kddetr.checkpoint.load_pretrained`.
        sampler: chooses the points.
        loss: compares the answers, see :class:`kddetr.losses.DistillationLoss`.
        placement: where the student is asked, see :class:`kddetr.points.AtAnswers`; None: at the
            points, like the teacher.
        weight: of the whole distillation loss, fixed from here on; at 0 the teacher is not even
            asked, and training is the plain student's, bit for bit.

    Teacher and student may differ in family, width, layers and number of queries: the student
    adopts the points, see :meth:`Detector.adopt`. Where both have learned content of different
    width a linear projection lies between, :attr:`projection`, which is trained, kept for resuming
    and no part of the student.

    Raises:
        UsageError: teacher and student have different numbers of classes, or their queries are of
            different kinds.
    """

    def __init__(
        self,
        *,
        student: Detector,
        teacher: Answerer,
        sampler: PointSampler,
        loss: nn.Module,
        placement: Placement | None = None,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if student.num_classes != teacher.num_classes:
            raise UsageError(
                f"The teacher knows {teacher.num_classes} classes and the student"
                f" {student.num_classes}: put kddetr.checkpoint.Vocabulary around the teacher,"
                " which finds the student's classes by name, or set the student's num_classes to"
                " the teacher's."
            )
        asked = teacher.query_parts if placement is None else {}  # placed queries are boxes
        if ("position" in asked) != ("position" in student.query_parts):
            raise UsageError(
                "The queries of a one-stage Deformable DETR are learned embeddings, those of the"
                " other detectors are boxes, and what the student is asked is not of its kind:"
                " take a teacher and a student of one kind, or ask a student of boxes where the"
                " teacher's answers are (placement=AtAnswers())."
            )
        self.student = student
        # Past nn.Module's registration, so that nothing that walks modules finds the teacher.
        object.__setattr__(self, "teacher", teacher.eval().requires_grad_(False))
        self.sampler = sampler
        self.loss = loss
        self.placement = placement
        self._weight = weight
        # Placed queries are boxes alone: there is nothing to carry over.
        carries = bool(weight) and placement is None
        self.projection = ContentProjection.between(teacher, student) if carries else None

    @property
    def deployable(self) -> Detector:
        """The plain detector inside."""
        return self.student

    @property
    def weight(self) -> float:
        """Of the distillation loss; what has to be trained beside the student depends on it."""
        return self._weight

    @property
    def num_classes(self) -> int:
        return self.student.num_classes

    @property
    def device(self) -> torch.device:
        return self.student.device

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detectron2's contract: losses in training, the student's detections otherwise."""
        if not self.training:
            return self.student(inputs)
        memory = self.student.encode(inputs)
        losses = self.student.losses(memory, inputs)
        if self.weight:
            points, wanted = self.ask_teacher(inputs, memory)
            asked = points if self.placement is None else self.placement(points, wanted)
            if self.projection is not None:
                asked = self.projection(asked)
            answers = self.student.decode(memory, self.student.adopt(memory, asked))
            gaps = self.loss(answers, wanted, points)
            losses = losses | {name: self.weight * gap for name, gap in gaps.items()}
        return losses

    @torch.no_grad()
    def ask_teacher(self, inputs: list[dict[str, Any]], memory: Any) -> tuple[Queries, Predictions]:
        """Fresh distillation points and what the teacher sees there.

        Ground truth is not looked at: points need no annotation.

        Args:
            inputs: images.
            memory: the student's, of the same images.
        """
        teacher = Encoded(self.teacher, self.teacher.encode(inputs))
        points = self.sampler(teacher, Encoded(self.student, memory))
        return points, teacher.decode(points)

    def _apply(self, fn, *args, **kwargs):
        """Moving or casting this module moves and casts the teacher."""
        super()._apply(fn, *args, **kwargs)
        self.teacher._apply(fn, *args, **kwargs)
        return self
