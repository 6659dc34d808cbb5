"""The arguments of :class:`~kddetr.engine.CocoEvaluator`, checked when it is built.

Each function returns the value to use, and raises a ConfigError that names the key of the config.
"""

import os
from collections.abc import Collection
from functools import cache
from typing import Any

from ...errors import ConfigError, did_you_mean

# Tasks, and the field that detections and annotations need for them in addition to a box.
TASKS = {"bbox": None, "segm": "segmentation", "keypoints": "keypoints"}
COCO_MAX_DETS = 100  # detections of a class that COCO counts in an image


@cache
def coco_backend() -> tuple[str, type | None]:
    """Name and class of the implementation of COCO's metric; the class is None for pycocotools.

    All implementations give the same numbers; faster-coco-eval is about ten times as fast as
    pycocotools.
    """
    try:
        from faster_coco_eval import COCOeval_faster

        return "faster-coco-eval", COCOeval_faster
    except ImportError:
        pass
    if kind := compiled_coco():
        return "Detectron2's compiled COCOeval", kind
    return "pycocotools", None


def compiled_coco() -> type | None:
    """Detectron2's compiled COCOeval; None in an install without compiled operators."""
    try:
        from detectron2 import _C
        from detectron2.evaluation.fast_eval_api import COCOeval_opt

        # An install without compiled operators may have a stand-in module that raises on use.
        _C.COCOevalEvaluateImages  # noqa: B018
        return COCOeval_opt
    except (ImportError, AttributeError):
        return None


def checked_tasks(tasks: Any) -> list[str]:
    """The tasks in alphabetical order."""
    tasks = [tasks] if isinstance(tasks, str) else tasks
    known = tuple(TASKS)
    if not isinstance(tasks, Collection) or not tasks or not all(task in known for task in tasks):
        raise ConfigError(
            f"dataloader.evaluator.tasks must be some of {', '.join(known)}, not {tasks}."
        )
    return sorted(set(tasks))


def checked_backend(backend: Any) -> tuple[str, type | None]:
    """Name and class of the implementation, see :func:`coco_backend`."""
    if backend not in ("auto", "pycocotools"):
        raise ConfigError(
            f"dataloader.evaluator.backend must be auto or pycocotools, not {backend!r};"
            f" {did_you_mean(str(backend), ('auto', 'pycocotools'))}"
        )
    return coco_backend() if backend == "auto" else ("pycocotools", None)


def checked_max_dets(count: Any) -> int:
    """How many detections of a class are counted in an image."""
    if count is None:
        return COCO_MAX_DETS
    # COCO's table also counts the best 10, and its code takes the largest number for the last.
    if type(count) is not int or count < 10:
        raise ConfigError(
            "dataloader.evaluator.max_dets_per_image must be a whole number, 10 or more, or null"
            f" for {COCO_MAX_DETS}, not {count!r}."
        )
    return count


def writable_folder(folder: Any) -> str | None:
    """The output folder, which is made if it does not exist."""
    if folder is None or folder == "":
        return None
    if not isinstance(folder, str | os.PathLike):
        raise ConfigError(f"dataloader.evaluator.output_dir must be a folder, not {folder!r}.")
    folder = os.path.expanduser(os.fspath(folder))
    try:
        os.makedirs(folder, exist_ok=True)
        reason = None if os.access(folder, os.W_OK) else "no permission to write"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ConfigError(
            f"dataloader.evaluator.output_dir={folder} cannot be written ({reason}): name a folder"
            " of your own, or null to save no detections."
        )
    return folder
