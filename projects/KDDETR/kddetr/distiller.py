"""KD-DETR (Wang et al., CVPR 2024): ask a frozen teacher and a trainable student the same extra
queries, and add the difference between their predictions to the student's loss.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor, nn

from .errors import UsageError
from .parallel import computed_once
from .projection import ContentProjection
from .ranges import not_negative
from .returned import (
    described,
    named_points,
    part_name,
    placed_queries,
    scalar_losses,
    takes,
    without_gradient,
)
from .structures import (
    Detector,
    DistillationLoss,
    EncodedDetector,
    PointSampler,
    Predictions,
    Queries,
    QueryableDetector,
    QueryPlacement,
    StepObserver,
    compared_layers,
    queries_are_boxes,
)


@META_ARCH_REGISTRY.register()
class KDDETR(nn.Module):
    """The Detectron2 meta-architecture that trains a student with the help of a teacher.

    The teacher is always in evaluation mode and without gradients. It is not a registered
    submodule, so it is absent from ``parameters()``, ``modules()`` and ``state_dict()``, and
    therefore from the optimizer, from DistributedDataParallel and from every checkpoint; ``.to()``
    moves it along. What is saved, evaluated and shipped is :attr:`deployable`, the student itself.

    Teacher and student may differ in family, width, number of layers and number of queries: the
    student converts the points to its own kind, see :meth:`Detector.convert_queries`. Where both
    have learned content of different widths, a linear :attr:`projection` lies between them. It is
    trained, saved for resuming, and not part of the student.

    Args:
        student: the detector to train.
        teacher: a trained detector, see :func:`kddetr.checkpoint.load_pretrained`; at weight 0 it
            may be None.
        sampler: chooses the distillation points, see :mod:`kddetr.points`.
        loss: compares the predictions, see :mod:`kddetr.losses`.
        query_placement: where the student is asked, see :class:`kddetr.points.AtAnswers`; None: at
            the points themselves, like the teacher.
        weight: of the whole distillation loss, at least 0. It cannot be changed later. At 0 the
            teacher is never asked, and training is that of the plain student, bit for bit.
        weight_schedule: from the fraction of the training that is done to a factor on the weight,
            such as a ParamScheduler of fvcore. Where it is 0, a step is that of the plain student,
            and :meth:`idle_parameters` stay as they are. None: the weight stays.

    Attributes:
        progress: the fraction of the training that is done, which a training with a schedule sets.
        observer: a :class:`StepObserver` that is called in every training step; None: none.

    Raises:
        ValueError: the weight is negative or no finite number.
        UsageError: there is no teacher to ask; teacher and student have different numbers of
            classes, or their queries are of different kinds; they share weights; a part cannot be
            called, or is no detector.
    """

    teacher: QueryableDetector

    def __init__(
        self,
        *,
        student: Detector,
        teacher: QueryableDetector | None = None,
        sampler: PointSampler,
        loss: DistillationLoss,
        query_placement: QueryPlacement | None = None,
        weight: float = 1.0,
        weight_schedule: Callable[[float], float] | None = None,
    ) -> None:
        super().__init__()
        not_negative(weight=weight)
        if teacher is None and weight:
            raise UsageError(
                f"A distillation of weight {weight:g} needs a teacher: give one, or set the weight"
                " to 0."
            )
        _check_parts(student, teacher, sampler=sampler, loss=loss, query_placement=query_placement)
        if teacher is not None and student.num_classes != teacher.num_classes:
            raise UsageError(
                f"The teacher has {teacher.num_classes} classes and the student"
                f" {student.num_classes}: wrap the teacher in kddetr.teachers.Vocabulary, which"
                " selects the student's classes by name, or set the student's num_classes to the"
                " teacher's."
            )
        # A query placement makes boxes, whatever the points are.
        asker = student if teacher is None else teacher
        asked_at_boxes = query_placement is not None or queries_are_boxes(asker)
        if asked_at_boxes != queries_are_boxes(student):
            raise UsageError(
                "The queries of a one-stage Deformable DETR are learned embeddings and those of the"
                " other detectors are boxes, so the student cannot be asked these points: take a"
                " teacher and a student of the same kind, or ask a student whose queries are boxes"
                " at the teacher's answers (query_placement=AtAnswers())."
            )
        self.student = student
        # Bypasses nn.Module's registration, so that nothing that walks the modules finds the
        # teacher.
        if teacher is not None:
            cast(nn.Module, teacher).eval().requires_grad_(False)
        object.__setattr__(self, "teacher", teacher)
        self.sampler = sampler
        self.loss = loss
        self.query_placement = query_placement
        self.observer: StepObserver | None = None
        self._weight = weight
        self.weight_schedule = weight_schedule
        self.progress = 0.0
        self.projection = None
        if teacher is not None and weight and query_placement is None:
            self.projection = ContentProjection.between(teacher, student)

    @property
    def deployable(self) -> Detector:
        """The student: the detector that is saved and evaluated."""
        return self.student

    @property
    def weight(self) -> float:
        """Weight of the distillation loss; read-only, because it decides what has to be trained."""
        return self._weight

    @property
    def current_weight(self) -> float:
        """The weight of this step, which follows the schedule.

        Raises:
            UsageError: the schedule gives a negative number, or none.
        """
        if self.weight_schedule is None:
            return self._weight
        factor = float(self.weight_schedule(self.progress))
        if not 0 <= factor < float("inf"):
            raise UsageError(
                f"weight_schedule gives {factor} after {self.progress:g} of the training, and the"
                " distillation has a weight of at least 0: correct model.weight_schedule."
            )
        return self._weight * factor

    def idle_parameters(self) -> list[nn.Parameter]:
        """What is trained beside the student, where the weight of this step is 0; else nothing."""
        if self.current_weight:
            return []
        own = {id(parameter) for parameter in cast(nn.Module, self.student).parameters()}
        return [p for p in self.parameters() if id(p) not in own and p.requires_grad]

    @property
    def num_classes(self) -> int:
        """K."""
        return self.student.num_classes

    @property
    def device(self) -> torch.device:
        """Where the student's weights are."""
        return self.student.device

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detectron2's contract: losses in training, the student's detections otherwise."""
        if not self.training:
            return self.student(inputs)
        memory = self.student.encode(inputs)
        losses = self.student.losses(memory, inputs)
        if not (weight := self.current_weight):
            if idle := self.idle_parameters():  # several processes need a gradient of each
                name, value = next(iter(losses.items()))
                losses = losses | {name: value + 0 * sum(p.sum() for p in idle)}
            return losses
        student, teacher, points = self.predict_at_points(inputs, memory)
        losses = scalar_losses(losses, self.student, self.device)
        distilled = self._weighted(self.loss(student, teacher, points), losses, weight)
        if self.observer is not None:
            self.observer(losses, distilled, student, teacher, points)
        return losses | distilled

    def predict_at_points(
        self, inputs: list[dict[str, Any]], memory: Any
    ) -> tuple[Predictions, Predictions, Queries]:
        """The student's and the teacher's predictions at the same points, and these points.

        Both are for the classes that the teacher knows.

        Args:
            inputs: the images.
            memory: the student's memory of the same images.

        Raises:
            UsageError: the sampler or the query placement returned no such queries.
        """
        points, answers = computed_once(
            "the teacher's answers", lambda: self.ask_teacher(inputs, memory)
        )
        asked = points
        if self.query_placement is not None:
            asked = self.query_placement(points, answers)
            asked = placed_queries(asked, self.query_placement, points)
        if self.projection is not None:
            asked = self.projection(asked)
        converted = self.student.convert_queries(memory, asked)
        student = EncodedDetector(self.student, memory, inputs)
        predictions = student.decode(converted, layers=compared_layers(self.loss)[0])
        predictions = predictions.with_classes(answers.classes)
        return replace(predictions, encoded=student), answers, points

    def count_normalisers(self, inputs: list[dict[str, Any]]) -> None:
        """Ask for the normalisers of all losses of a training step, whose distillation losses are
        computed for it; see :class:`kddetr.parallel.BatchInParts`, which keeps the answers.
        """
        count = getattr(self.student, "count_normalisers", None)
        asks = self.current_weight > 0
        memory = self.student.encode(inputs) if asks or count is None else None
        if count is not None:
            count(inputs)
        else:
            self.student.losses(memory, inputs)
        if asks:
            self.loss(*self.predict_at_points(inputs, memory))

    @torch.no_grad()
    def ask_teacher(self, inputs: list[dict[str, Any]], memory: Any) -> tuple[Queries, Predictions]:
        """The distillation points of this step, and the teacher's predictions there.

        Ground truth is not needed; a sampler that uses it finds it in ``inputs``.

        Args:
            inputs: the images.
            memory: the student's memory of the same images.

        Raises:
            UsageError: the sampler returned no points of these images in named groups.
        """
        teacher = EncodedDetector(self.teacher, self.teacher.encode(inputs), inputs)
        points = self.sampler(teacher, EncodedDetector(self.student, memory, inputs))
        points = named_points(points, self.sampler, len(inputs))
        answers = teacher.decode(points, layers=compared_layers(self.loss)[1])
        teacher.forget()  # before the student decodes: few losses ask the teacher further queries
        return points, replace(answers, encoded=teacher)

    def _weighted(
        self, distilled: object, losses: Mapping[str, Tensor], weight: float
    ) -> dict[str, Tensor]:
        """The distillation losses, multiplied by the weight, under names that the log groups.

        Raises:
            UsageError: the distillation loss returned no dictionary of scalar losses, one of them
                has no gradient, or one has the name of one of the student's ``losses``.
        """
        values = scalar_losses(distilled, self.loss, self.device)
        for name in without_gradient(values):
            raise UsageError(
                f"{part_name(self.loss)} returned {name!r} without a gradient, so it would not"
                " train the student but be added to its loss: compute it from the student's"
                " predictions without detach, or, if it is only meant for the log, leave it out and"
                f" call detectron2.utils.events.get_event_storage().put_scalar({name!r}, value)."
            )
        weighted: dict[str, Tensor] = {}
        for name, value in values.items():
            # The log sums losses by the part before the "/".
            name = name if "/" in name else f"kd/{name}"
            if name in losses or name in weighted:
                raise UsageError(
                    f"The distillation loss returns {name!r}, which is already the name of another"
                    " loss and would replace it: return it under a name of its own."
                )
            weighted[name] = weight * value
        return weighted

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "KDDETR":
        """Moving or casting this module also moves and casts the teacher."""
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        if self.teacher is not None:
            cast(nn.Module, self.teacher)._apply(fn, *args, **kwargs)
        return self


def _check_parts(
    student: object, teacher: object, *, sampler: object, loss: object, query_placement: object
) -> None:
    """Raise a UsageError where a part is not of its kind."""
    detectors: list[tuple[str, object, type]] = [("student", student, Detector)]
    if teacher is not None:  # without one it is never asked
        detectors.append(("teacher", teacher, QueryableDetector))
    for name, detector, kind in detectors:
        if not isinstance(detector, kind) or not isinstance(detector, nn.Module):
            raise UsageError(
                f"The {name} is {described(detector)}, which is not a {kind.__name__} of"
                " kddetr.structures: take a detector of kddetr.detectors, and wrap a model of"
                " Detectron2 in kddetr.detectors.detectron2_detector."
            )
    trained = {id(p) for p in cast(nn.Module, student).parameters()}
    frozen = () if teacher is None else cast(nn.Module, teacher).parameters()
    if any(id(p) in trained for p in frozen):
        raise UsageError(
            "Teacher and student share weights, which would freeze the student with its teacher:"
            " give the teacher a copy of its own, copy.deepcopy(student)."
        )
    callables = {"sampler": (sampler, 2), "loss": (loss, 3)}
    if query_placement is not None:
        callables["query_placement"] = (query_placement, 2)
    for name, (part, arguments) in callables.items():
        if isinstance(part, type):
            raise UsageError(
                f"The {name} is the class {part.__name__} itself: make an object of it, in a config"
                f" with L({part.__name__})(...)."
            )
        if not takes(part, arguments):
            raise UsageError(
                f"The {name} is {described(part)}, which cannot be called with {arguments}"
                " arguments: see docs/your_own.md for what a sampler, a loss and a query placement"
                " are."
            )
