"""Checks of the data sets that a config names, before a model is built.

Detectron2 itself would stop later and with a traceback: at a missing image in the middle of the
training, at a misspelt test set in the first evaluation.
"""

import logging
import os
from collections.abc import Callable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.registry import locate

from ..errors import DatasetError, did_you_mean
from .class_differences import class_difference
from .coco import load_coco_format, register_coco_format
from .folders import list_images, load_image_folder
from .images import check_bits
from .reader import check_metadata, reads_coco_file, use_checked_reader
from .registered import Findings, check_file, check_function, nothing_to_learn

_log = logging.getLogger(__name__)


# What was found in (name, for training, for evaluation); a data set is checked again where what is
# registered under its name, or its file, has changed.
_checked: dict[tuple[str, bool, bool], tuple[Callable, tuple | None, Findings]] = {}


def check_dataset(
    names: str | Sequence[str], *, for_training: bool = False, for_evaluation: bool = False
) -> None:
    """Check that data sets can be used, as far as that is quick, and register their class names.

    A data set that was checked is not read again until its file changes.

    Args:
        names: a registered name, or several names of data sets that are used together and must
            have the same classes.
        for_training: also require annotations, with a box to learn from in at least one data set.
        for_evaluation: also require what the metric reads: of a COCO file see
            :func:`~kddetr.data.entries.check_for_metric`; of the records of a function an
            ``image_id`` of its own.

    Raises:
        DatasetError: a name is not registered, a file, folder or image is missing, an entry is
            invalid, the boxes are not in pixels of the images, or the classes differ.
    """
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise DatasetError("No data set is named: give at least one registered name.")
    boxes = []
    for name in names:
        if name not in DatasetCatalog.list():
            hint = did_you_mean(
                str(name), DatasetCatalog.list(), otherwise="check the spelling.", count=3
            )
            raise DatasetError(
                f"No data set is registered as {name!r}; {hint} Your own COCO-format data needs no "
                "registered name: see configs/common/data/custom.py."
            )
        found = _check_once(name, for_training, for_evaluation)
        for warning in found.warnings:
            _log.warning("%s", warning)
        boxes.append(found.boxes)
    if for_training and not any(count is None or count for count in boxes):
        raise DatasetError(nothing_to_learn(names))
    check_same_classes(names)


def check_same_classes(names: Sequence[str]) -> None:
    """Raise DatasetError if registered data sets have different classes, where these are known."""
    known = {n: MetadataCatalog.get(n).get("thing_classes") for n in names}
    known = {n: list(classes) for n, classes in known.items() if classes}
    for name, classes in known.items():
        first = next(iter(known))
        if difference := class_difference(known[first], classes):
            raise DatasetError(
                f"Data sets {first!r} and {name!r} have different classes: {difference}; give both"
                " files the same categories."
            )


def dataset_names(node) -> list[str]:
    """The registered names that a part of a config uses; data sets given by paths are registered,
    and the records of others are checked whenever they are read, in this process.

    The part is a name, a list of names, a node with ``names`` (``get_detection_dataset_dicts``), or
    a node of :func:`load_coco_format` or :func:`register_coco_format`; others use no name.

    Raises:
        DatasetError: a path is empty, or the name already belongs to another data set.
    """
    if node is None or isinstance(node, str):
        if node and node in DatasetCatalog.list():
            use_checked_reader(node)
        return [node] if node else []
    if not hasattr(node, "keys"):
        return [name for item in node for name in dataset_names(item)]
    if "names" in node:
        return dataset_names(node["names"])
    if _target(node) in (load_coco_format, register_coco_format):
        keys = ("json_file", "image_root", "name")
        return [register_coco_format(**{k: node[k] for k in keys if k in node})]
    return []


def check_pixels(names: Sequence[str], bits: int | None, key: str, *, folder: str = "") -> None:
    """Check that 16-bit images fill the bits that their mapper expects.

    Args:
        names: registered names, which :func:`check_dataset` has checked.
        bits: argument ``bits`` of the mapper.
        key: the config key of this argument, for the message.
        folder: a folder of images that the same mapper reads, if any.

    Raises:
        DatasetError: the images would become black or white, or one of them cannot be opened, or
            the folder holds none.
    """
    check_bits(sorted(_images(names)), bits, key)
    if folder:
        check_bits([str(path) for path in list_images(folder)[0]], bits, key)


def image_folder(node) -> str:
    """The folder that a node of :func:`load_image_folder` reads; "" for any other part."""
    return str(node.get("image_root") or "") if _target(node) is load_image_folder else ""


def warn_of_shared_images(training: Sequence[str], tested: Sequence[str]) -> None:
    """Warn of images that are both trained on and tested on, by their file names.

    Args:
        training, tested: registered names, which :func:`check_dataset` has checked.
    """
    seen = {os.path.normpath(file) for file in _images(training)}
    shared = sorted(file for file in _images(tested) if os.path.normpath(file) in seen)
    if shared:
        _log.warning(
            "%d of the test images are training images too, such as %s: their results say little "
            "about other images.",
            len(shared),
            shared[0],
        )


def _images(names: Sequence[str]) -> set[str]:
    return {
        f for (name, *_), (*_, found) in _checked.items() if name in names for f in found.images
    }


def _target(node) -> object:
    target = node.get("_target_") if hasattr(node, "keys") else None
    return locate(target) if isinstance(target, str) else target


def _check_once(name: str, for_training: bool, for_evaluation: bool) -> Findings:
    """What the check found, which is remembered: the program and the trainer both check."""
    check_metadata(name)
    use_checked_reader(name)
    key, state = (name, for_training, for_evaluation), None
    json_file = MetadataCatalog.get(name).get("json_file")
    if json_file and os.path.isfile(json_file):
        state = (os.stat(json_file).st_mtime_ns, os.path.getsize(json_file))
    reader, before, found = _checked.get(key, (None, None, None))
    if found is None or reader is not DatasetCatalog[name] or before != state:
        check = check_file if reads_coco_file(name) else check_function
        found = check(name, for_training, for_evaluation)
        _checked[key] = (DatasetCatalog[name], state, found)
    return found
