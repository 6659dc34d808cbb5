"""The detectors of a run: the student with its final weights, and the teacher as a detector."""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ..checkpoint import WrapperState, deployable, load_pretrained, read_checkpoint
from ..engine import Trainer, resolve_device
from ..engine.watch import watched
from ..errors import CheckpointError, UserError
from ..teachers import HalfPrecision, RecordedTeacher, Vocabulary
from ..teachers.wrapper import TeacherWrapper
from .run import Run

_log = logging.getLogger(__name__)
WEIGHTS = "model_final.pth"


class TeacherDetector(nn.Module):
    """The detections of a teacher among the student's classes, without the wrappers around it.

    Args:
        teacher: of a distillation.

    Attributes:
        detector: the detector inside of the wrappers.

    Raises:
        TypeError: it does not detect objects itself, as a recorded teacher.
    """

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self._dtype: torch.dtype | None = None
        rows: list[Tensor] = []  # of the vocabularies, from the inside out
        while isinstance(teacher, TeacherWrapper):
            if isinstance(teacher, Vocabulary):
                rows.insert(0, teacher.rows)
            if isinstance(teacher, HalfPrecision):
                self._dtype = teacher.dtype
            teacher = teacher.detector
        if isinstance(teacher, RecordedTeacher) or not callable(teacher):
            raise TypeError(f"a {type(teacher).__name__} does not detect objects itself")
        self.detector = teacher
        # The student's class of each of the teacher's; -1: the student does not have it.
        self._class_of = torch.arange(teacher.num_classes)
        for chosen in rows:
            place = torch.full((int(self._class_of.max()) + 1,), -1)
            place[chosen.cpu()] = torch.arange(len(chosen))
            known = self._class_of >= 0
            self._class_of[known] = place[self._class_of[known]]

    def forward(self, inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """``instances`` of each image, as every detector gives them."""
        device = next(self.detector.parameters()).device
        rounding = torch.autocast(device.type, self._dtype) if self._dtype else nullcontext()
        with rounding:
            outputs = self.detector(inputs)
        for output in outputs:
            found = output["instances"]
            classes = self._class_of.to(found.pred_classes.device)[found.pred_classes]
            found = found[classes >= 0]
            found.pred_classes = classes[classes >= 0]
            output["instances"] = found
        return outputs


def detectors_of(model: nn.Module) -> dict[str, nn.Module]:
    """Student and teacher of a distiller, or a plain detector as ``detector``, to detect with."""
    student = deployable(model)
    if watched(model) is None:
        return {"detector": student}
    found: dict[str, nn.Module] = {"student": student}
    try:
        found["teacher"] = TeacherDetector(model.teacher)
    except TypeError as error:
        _log.info("The report has no detections of the teacher: %s.", error)
    return found


def load_model(run: Run) -> nn.Module:
    """The model of a finished run with its final weights: the distiller, or the detector where the
    teacher cannot be loaded any more.

    Raises:
        CheckpointError: the final weights are missing or do not fit.
        ConfigError: the model cannot be built.
    """
    file = run.folder / WEIGHTS
    if not file.is_file():
        raise CheckpointError(
            f"{run.folder} has no {WEIGHTS}, so there are no detections to show: let the run end."
        )
    try:
        model = Trainer.build_model(run.cfg)
    except UserError as error:
        if not run.is_distilled:
            raise
        _log.warning("The report is made without the teacher: %s", error)
        model = Trainer.build_detector(run.cfg)
    load_pretrained(deployable(model), str(file))
    state = read_checkpoint(str(file)).get("wrapper") or {}
    if state and deployable(model) is not model:
        WrapperState(model).load_state_dict(state)
    return model.to(resolve_device(run.cfg.train.device)).eval()


def parameters(detector: nn.Module) -> int:
    """The number of parameters, frozen ones included."""
    return sum(p.numel() for p in detector.parameters())


def class_names(names: Sequence[str], count: int) -> list[str]:
    """Names of so many classes, numbers where there are none."""
    return [*names, *map(str, range(len(names), count))]
