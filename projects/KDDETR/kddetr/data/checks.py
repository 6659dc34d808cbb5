"""Checks of the data sets that a config names, before a model is built.

Detectron2 itself would stop later and with a traceback: at a missing image in the middle of the
training, at a misspelt test set in the first evaluation.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.registry import locate

from ..errors import DatasetError, did_you_mean
from .class_names import class_difference
from .coco import (
    coco_records,
    load_coco_format,
    read_coco_json,
    register_coco_format,
    set_classes,
)
from .entries import check_class_names, check_for_metric
from .folders import list_images, load_image_folder
from .images import SEEN, check_bits, check_size, header_size, read_image, spread
from .paths import check_images_exist, check_paths
from .plausibility import boxes_outside, check_boxes
from .reader import check_metadata, reads_coco_file, use_checked_reader
from .records import check_for_evaluation

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    """What the check of a data set found.

    Attributes:
        boxes: the number of boxes to learn from; None where they were not counted.
        images: the files of its images; addresses, such as ``s3://``, are left out.
        warnings: sentences to warn with.
        reader, file: what was read; a data set is checked again where these have changed.
    """

    boxes: int | None
    images: tuple[str, ...]
    warnings: tuple[str, ...]
    reader: Callable
    file: tuple[int, int] | None


_checked: dict[tuple[str, bool, bool], _Found] = {}


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
        raise DatasetError(_nothing_to_learn(names))
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
    return {f for (name, *_), found in _checked.items() if name in names for f in found.images}


def _target(node) -> object:
    target = node.get("_target_") if hasattr(node, "keys") else None
    return locate(target) if isinstance(target, str) else target


def _check_once(name: str, for_training: bool, for_evaluation: bool) -> _Found:
    """What the check found, which is remembered: the program and the trainer both check."""
    check_metadata(name)
    use_checked_reader(name)
    key, state = (name, for_training, for_evaluation), None
    json_file = MetadataCatalog.get(name).get("json_file")
    if json_file and os.path.isfile(json_file):
        state = (os.stat(json_file).st_mtime_ns, os.path.getsize(json_file))
    found = _checked.get(key)
    if found is None or found.reader is not DatasetCatalog[name] or found.file != state:
        check = _check_file if reads_coco_file(name) else _check_function
        boxes, images, warnings = check(name, for_training, for_evaluation)
        found = _Found(boxes, images, tuple(warnings), DatasetCatalog[name], state)
        _checked[key] = found
    return found


def _check_file(
    name: str, for_training: bool, for_evaluation: bool
) -> tuple[int | None, tuple[str, ...], list[str]]:
    """Check a data set whose records are those of a COCO file; see :class:`_Found`."""
    metadata = MetadataCatalog.get(name)
    json_file, image_root = str(metadata.json_file), str(metadata.get("image_root") or "")
    check_paths(name, json_file, image_root)
    document = read_coco_json(json_file)
    if not document["images"]:
        raise DatasetError(
            f"Data set {name!r}: {json_file} lists no image; name a file that lists images."
        )
    records, classes, id_map = coco_records(document, json_file=json_file, image_root=image_root)
    files = [record["file_name"] for record in records]
    check_images_exist(f"Data set {name!r}", files, image_root)
    if for_evaluation:
        check_for_metric(document, json_file)
    if not classes and (for_training or for_evaluation):
        raise DatasetError(f"{json_file} names no category: list at least one class.")
    set_classes(name, classes, id_map, f"{json_file} has the classes")
    if for_training and "annotations" not in document:
        raise DatasetError(_nothing_to_learn([name]))
    if for_evaluation:
        _check_unsized(records, json_file)
    return _check_pictures(records, json_file, for_training or for_evaluation)


def _check_function(
    name: str, for_training: bool, for_evaluation: bool
) -> tuple[int | None, tuple[str, ...], list[str]]:
    """Check a data set whose records a function of the user returns; see :class:`_Found`."""
    metadata, where = MetadataCatalog.get(name), f"Data set {name!r}"
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if json_file:
        check_paths(name, json_file, image_root)
    records = DatasetCatalog.get(name)
    if not records:
        raise DatasetError(f"{where}: its function returns no image.")
    check_images_exist(where, [record["file_name"] for record in records])
    labelled = sum("annotations" in record for record in records)
    if for_training and not labelled:
        raise DatasetError(_nothing_to_learn([name]))
    if 0 < labelled < len(records):
        raise DatasetError(
            f"{where}: {len(records) - labelled} of {len(records)} records have no 'annotations': "
            "an image that shows no object has an empty list."
        )
    if for_training or for_evaluation:
        _check_classes(name)
    if for_evaluation:
        check_for_evaluation(records, where)
        _check_unsized(records, where)
        if json_file and metadata.get("evaluator_type", "coco") == "coco":
            _check_metric_file(name, records)
    return _check_pictures(records, where, for_training or for_evaluation)


def _check_classes(name: str) -> None:
    """Check the classes that the user's code has set for a function."""
    metadata, where = MetadataCatalog.get(name), f"Data set {name!r}"
    classes = metadata.get("thing_classes")
    if not classes:
        raise DatasetError(
            f"{where} has no classes: set their names with MetadataCatalog.get({name!r}).set("
            "thing_classes=[...])."
        )
    check_class_names(classes, where)
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if ids and set(ids.values()) != set(range(len(classes))):
        raise DatasetError(
            f"{where}: thing_dataset_id_to_contiguous_id must give ids for the {len(classes)} "
            f"classes from 0 to {len(classes) - 1}, and not for {sorted(set(ids.values()))}."
        )


def _check_metric_file(name: str, records: Sequence[dict]) -> None:
    """Check that a COCO file, which the metric reads, is about the records of a function."""
    metadata = MetadataCatalog.get(name)
    json_file = str(metadata.json_file)
    document = read_coco_json(json_file)
    listed, classes, id_map = coco_records(document, json_file=json_file, image_root="")
    check_for_metric(document, json_file)
    if not metadata.get("thing_dataset_id_to_contiguous_id"):
        what = f"{json_file}, which its metadata names, has the classes"
        set_classes(name, classes, id_map, what)
    ids, wanted = ({record["image_id"] for record in some} for some in (records, listed))
    if ids != wanted:
        raise DatasetError(
            f"Data set {name!r}: its function returns {len(ids)} images, but the metric reads "
            f"{json_file}, which lists {len(wanted)}, and {len(ids & wanted)} image ids are in "
            "both: return the same images, or leave json_file out of the metadata."
        )


def _check_unsized(records: Sequence[dict], where: str) -> None:
    """Refuse boxes outside of images whose size is not stated: the metric would count them."""
    unsized = [r for r in records if r.get("annotations") and not ("width" in r and "height" in r)]
    sizes = {
        file: header_size(file) or read_image(file).shape[1::-1]
        for file in (record["file_name"] for record in unsized)
        if "://" not in file
    }
    if count := boxes_outside(unsized, sizes):
        raise DatasetError(
            f"{where}: {count} boxes lie outside of their image, which has no width and height "
            "there: add these, and the metric leaves such boxes out as training does."
        )


def _check_pictures(
    records: Sequence[dict], where: str, labeled: bool
) -> tuple[int | None, tuple[str, ...], list[str]]:
    """Look at the headers of some images, and compare all boxes with the sizes of the images."""
    sizes = {}
    local = [r for r in records if "://" not in r["file_name"]]
    for record in spread(local, SEEN):
        file = record["file_name"]
        size = header_size(file)
        if size:
            sizes[file] = size
            stated = record.get("width", size[0]), record.get("height", size[1])
            if stated != size:
                check_size(file, read_image(file).shape[1::-1], stated)
    images = tuple(record["file_name"] for record in local)
    boxes, warnings = check_boxes(records, where, sizes) if labeled else (None, [])
    return boxes, images, warnings


def _nothing_to_learn(names: Sequence[str]) -> str:
    return (
        f"The training data {', '.join(map(repr, names))} has no box to learn from, crowds not "
        "counted. To distil from images without labels, name them in dataloader.train.unlabeled "
        "beside labelled ones, or set dataloader.train.mapper.labeled=False."
    )
