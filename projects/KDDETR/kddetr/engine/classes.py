"""The classes of a run by name: recorded in its config, and compared with those of every file."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..checkpoint import (
    AssumedClasses,
    classes_in,
    deployable,
    read_checkpoint,
    weight_owner,
)
from ..data import class_difference, registered_classes
from ..errors import CheckpointError, ConfigError, DatasetError
from ..teachers import Vocabulary, trained_classes
from .checks import labeled_names, tested_names
from .evaluation.sets import has_test_data

_log = logging.getLogger(__name__)


def check_model(cfg: DictConfig, model: nn.Module, *, training: bool = True) -> None:
    """Check that the classes of the detector, and of its teacher, are those of its data, and that
    the detector has the heads that the evaluator judges. An evaluation reads no training data.

    Many detectors train without an error with one class too few, and never detect the last class.
    The names that a teacher predicts, those in its file or those that a
    :class:`~kddetr.teachers.Vocabulary` selects, must be those of the data, in the same order.

    Raises:
        ConfigError: the numbers or the names of the classes differ, or a head is missing.
    """
    detector = deployable(model)
    _check_heads(cfg, model)
    amp = cfg.train.amp
    asked = amp.enabled is True  # "auto" is float32 here
    if asked and amp.dtype == "bfloat16" and hasattr(weight_owner(model), "roi_heads"):
        _log.warning(
            "In bfloat16 Detectron2 rounds the corners of regions to 8 significant bits, by up to 4"
            " pixels on a large image: float32, or float16 on CUDA, is more exact for a detector"
            " with ROI heads."
        )
    num_classes = getattr(detector, "num_classes", None)
    if num_classes is None:
        return
    trained = _training_classes(cfg) if training else {}
    for name, classes in (trained | _test_classes(cfg)).items():
        if len(classes) != num_classes:
            some = ", ".join(classes if len(classes) <= 5 else [*classes[:5], "..."])
            raise ConfigError(
                f"The {type(detector).__name__} has num_classes={num_classes}, but the data set"
                f" '{name}' has {len(classes)} classes ({some}): set"
                f" num_classes={len(classes)} in the config (for a distilled student"
                " model.student.num_classes)."
            )
        _check_teacher(model, name, classes)


def check_classes(cfg: DictConfig, file: str, *, training: bool) -> None:
    """Compare the names in a file with those of the data before anything is built or written.

    Args:
        cfg: the config, whose data sets have been checked.
        file: the checkpoint that a run resumes from, or that is evaluated; empty: none.
        training: whether a run resumes; it also records its classes in the config.

    Raises:
        CheckpointError: the classes differ.
        ConfigError: see :func:`record_classes`.
    """
    if training:
        record_classes(cfg)
    names: Sequence[str] = ()
    with contextlib.suppress(CheckpointError):  # a file that cannot be read is reported later
        names = classes_in(read_checkpoint(file), file) if file else ()
    if names and training:
        check_start(cfg, {"classes": names}, file, resumed=True)
    elif names:
        check_evaluated(cfg, {"classes": names}, file)


def record_classes(cfg: DictConfig) -> list[str]:
    """The class names of a run's data, which are also written into ``cfg.train.classes``.

    They are those of the labelled training data, or else of the test data, or else what the config
    says; empty where none of them has names.

    Raises:
        ConfigError: ``train.classes`` are others than those of the data.
        DatasetError: the data cannot be read.
    """
    stated = list(cfg.train.classes or ())
    for name, names in (_training_classes(cfg) or _test_classes(cfg)).items():
        if stated and (words := class_difference(stated, names, "train.classes", "the data")):
            raise ConfigError(
                f"train.classes are not the classes of the data set {name!r}: {words}; set"
                " train.classes=null to take those of the data."
            )
        cfg.train.classes = [one.replace("${", "\\${") for one in names]  # no interpolation
        return names
    return stated


def check_start(cfg: DictConfig, loaded: Mapping[str, Any], file: str, *, resumed: bool) -> None:
    """Compare the classes of a run with those of the file that it starts from.

    Args:
        cfg: the config, with the names of its classes.
        loaded: what the file holds, see :meth:`Checkpointer.load`.
        file: its name, for messages.
        resumed: whether the run goes on; otherwise the file only gives the first weights, and as
            many other classes are a warning.

    Raises:
        CheckpointError: the run that goes on had other classes.
    """
    trained, wanted = loaded.get("classes", ()), list(cfg.train.classes or ())
    difference = _difference(trained, wanted)
    if difference and resumed:
        raise CheckpointError(
            f"{file} is of a run with other classes than those of the data: {difference}; resume"
            " with the run's own data, or start a new run in another train.output_dir with"
            " train.init_checkpoint=FILE."
        )
    if difference and len(trained) == len(wanted):  # another number is said where it is loaded
        _log.warning(
            "%s was trained with other classes than those of the data: %s; its heads are loaded all"
            " the same, because they are of as many classes, and have to learn the new ones.",
            file,
            difference,
        )


def check_evaluated(cfg: DictConfig, loaded: Mapping[str, Any], file: str) -> None:
    """Compare the classes of the test data with those of a file that is evaluated on them.

    Where the file has no names, those of ``train.classes`` count, and without these the names of
    the training data, if the config names data that can be read.

    Args:
        cfg: the config.
        loaded: what the file holds, see :meth:`Checkpointer.load`.
        file: its name, for messages.

    Raises:
        CheckpointError: the classes differ.
    """
    known, whose, advice = loaded.get("classes", ()), f"the detector in {file}", ""
    there = "the file"
    if not known and (known := list(cfg.train.classes or ())):
        whose, there, advice = (
            "train.classes",
            "train.classes",
            "set train.classes to what the file was trained with, or ",
        )
    if not known:
        training, known = next(iter(_training_classes(cfg).items()), ("", ()))
        whose, there = f"the training data {training!r}", "the training data"
        advice = "set train.classes to those that the file was trained with, or "
    tested = _test_classes(cfg)
    if tested and not known:
        _log.warning(
            "%s has no class names, in itself or in a card beside it, so its classes are those of"
            " the test data only if they are numbered alike; train.classes=[...] has them compared"
            " by name.",
            file,
        )
    for name, classes in tested.items():
        if difference := _difference(known, classes, there, "the test data"):
            raise CheckpointError(
                f"The classes of the test data {name!r} are not those of {whose}: {difference};"
                f" {advice}give the test data the same categories, with ids in the same order."
            )


def _check_heads(cfg: DictConfig, model: nn.Module) -> None:
    """Refuse an evaluation of masks or keypoints of a detector of this project without them; what
    other detectors have is not known.
    """
    detector = deployable(model)
    tasks = OmegaConf.select(cfg, "dataloader.evaluator.tasks") if has_test_data(cfg) else None
    if not tasks or not type(detector).__module__.startswith("kddetr."):
        return
    heads = getattr(weight_owner(model), "roi_heads", None)
    for task, head in (("segm", "mask_on"), ("keypoints", "keypoint_on")):
        if task in tasks and not getattr(heads, head, False):
            raise ConfigError(
                f"dataloader.evaluator.tasks names {task}, but the {type(detector).__name__} has no"
                f" head for it: leave out {task}."
            )


def _check_teacher(model: nn.Module, name: str, classes: Sequence[str]) -> None:
    """Compare the class names that the teacher of a distiller predicts with those of a data set."""
    teacher = getattr(model, "teacher", None)
    if teacher is None or not getattr(model, "weight", 1):
        return  # at weight 0 it is never asked
    detector = teacher
    while detector is not None and not isinstance(detector, Vocabulary):
        detector = getattr(detector, "detector", None)  # the detector in another wrapper
    if detector is not None:
        if words := class_difference(detector.wanted, classes, "wanted", "the data"):
            raise ConfigError(
                "The teacher's Vocabulary selects other classes than those of the data set"
                f" {name!r}: {words}; set its argument wanted to the data's names, in their order."
            )
    elif words := _difference(trained_classes(teacher), classes):
        raise ConfigError(
            f"The teacher's file has other classes than the data set {name!r}: {words}; wrap the"
            " teacher in kddetr.teachers.Vocabulary, which selects the data's classes by name (its"
            " argument classes has the file's names, wanted the data's)."
        )


def _difference(
    trained: Sequence[str],
    wanted: Sequence[str],
    in_trained: str = "the file",
    in_wanted: str = "the data",
) -> str:
    """How the classes of a file differ from those of the data; empty where one is not known."""
    if not trained or not wanted:
        return ""
    if isinstance(trained, AssumedClasses):
        same = sum(a == b for a, b in zip(trained, wanted, strict=False))
        if 2 * same >= len(trained):
            return ""
    return class_difference(trained, wanted, in_trained, in_wanted)


def _training_classes(cfg: DictConfig) -> dict[str, list[str]]:
    """The class names of the labelled training data by data set, where they can be read."""
    with contextlib.suppress(DatasetError):  # an evaluation needs no training data
        return _with_classes(labeled_names(cfg))
    return {}


def _test_classes(cfg: DictConfig) -> dict[str, list[str]]:
    """The class names of the test data by data set, where they have names."""
    return _with_classes(tested_names(cfg))


def _with_classes(names: Sequence[str]) -> dict[str, list[str]]:
    return {name: classes for name in names if (classes := registered_classes(name))}
