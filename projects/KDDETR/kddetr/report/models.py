"""The detectors of a run: the student with its final weights, and the teacher as a detector."""

import logging
from collections.abc import Sequence

from torch import nn

from ..checkpoint import WrapperState, deployable, load_pretrained, read_checkpoint
from ..engine import Trainer, resolve_device
from ..engine.watch import watched
from ..errors import CheckpointError, UserError
from ..teachers import TeacherDetector
from .run import Run

_log = logging.getLogger(__name__)
WEIGHTS = "model_final.pth"


def detectors_of(model: nn.Module) -> dict[str, nn.Module]:
    """Student and teacher of a distiller, or a plain detector as ``detector``, to detect with."""
    student = deployable(model)
    if watched(model) is None:
        return {"detector": student}
    found: dict[str, nn.Module] = {"student": student}
    teacher = TeacherDetector(model.teacher)
    if next(teacher.parameters(), None) is None:
        words = "The report has no detections of the teacher: a %s does not detect objects itself."
        _log.info(words, type(model.teacher).__name__)
        return found
    return found | {"teacher": teacher}


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
