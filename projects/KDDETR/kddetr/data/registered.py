"""What is looked at in a registered data set: its file or function, its images and its boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import DatasetError
from .coco import coco_records, read_coco_json, set_classes
from .entries import check_class_names, check_for_metric
from .images import SEEN, check_size, header_size, read_image, spread, upright_size
from .paths import check_images_exist, check_paths, is_address
from .plausibility import boxes_outside, check_boxes
from .reader import read_by_detectron2
from .records import check_for_evaluation


@dataclass(frozen=True)
class Findings:
    """What the check of a data set found.

    Attributes:
        boxes: the number of boxes to learn from; None where they were not counted.
        images: the files of its images; addresses, such as ``s3://``, are left out.
        warnings: sentences to warn with.
    """

    boxes: int | None
    images: tuple[str, ...]
    warnings: tuple[str, ...]


def check_file(name: str, for_training: bool, for_evaluation: bool) -> Findings:
    """Check a data set whose records are those of a COCO file."""
    metadata = MetadataCatalog.get(name)
    json_file, image_root = str(metadata.json_file), str(metadata.get("image_root") or "")
    check_paths(name, json_file, image_root)
    document = read_coco_json(json_file)
    if not document["images"]:
        raise DatasetError(
            f"Data set {name!r}: {json_file} lists no image; name a file that lists images."
        )
    records, classes, id_map = coco_records(document, json_file=json_file, image_root=image_root)
    if read_by_detectron2(name):
        _check_outlines(document, json_file)
    files = [record["file_name"] for record in records]
    check_images_exist(f"Data set {name!r}", files, image_root)
    if for_evaluation:
        check_for_metric(document, json_file)
    if not classes and (for_training or for_evaluation):
        raise DatasetError(f"{json_file} names no category: list at least one class.")
    set_classes(name, classes, id_map, json_file)
    if for_training and "annotations" not in document:
        raise DatasetError(nothing_to_learn([name]))
    if for_evaluation:
        _check_unsized(records, json_file)
    return _check_pictures(records, json_file, for_training or for_evaluation)


def _check_outlines(document: dict, json_file: str) -> None:
    """Refuse a file of which Detectron2's reader would leave out boxes, because they have a
    ``segmentation`` without a polygon; the metric would count them.
    """
    notes = document.get("annotations", ())
    if left_out := [note for note in notes if _has_no_polygon(note.get("segmentation"))]:
        raise DatasetError(
            f"{json_file}, annotation {left_out[0].get('id', '(no id)')}: no polygon of its "
            "segmentation has 3 points, and Detectron2's reader leaves the boxes of "
            f"{len(left_out)} such annotations out: write [] as their segmentation, or name the "
            "file with load_coco_format instead of a registered name, which reads all boxes."
        )


def _has_no_polygon(outline: Any) -> bool:
    if not outline or isinstance(outline, dict):
        return False
    try:
        return not any(len(points) >= 6 and len(points) % 2 == 0 for points in outline)
    except TypeError:  # Detectron2's reader stops there too, so that the file is read here
        return False


def check_function(name: str, for_training: bool, for_evaluation: bool) -> Findings:
    """Check a data set whose records a function of the user returns."""
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
        raise DatasetError(nothing_to_learn([name]))
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
    ids = list((metadata.get("thing_dataset_id_to_contiguous_id") or {}).values())
    if ids and (not all(hasattr(i, "__index__") for i in ids) or {*ids} != {*range(len(classes))}):
        raise DatasetError(
            f"{where}: thing_dataset_id_to_contiguous_id must give ids for the {len(classes)} "
            f"classes from 0 to {len(classes) - 1}, and not for {ids}."
        )


def _check_metric_file(name: str, records: Sequence[dict]) -> None:
    """Check that a COCO file, which the metric reads, is about the records of a function."""
    metadata = MetadataCatalog.get(name)
    json_file = str(metadata.json_file)
    document = read_coco_json(json_file)
    listed, classes, id_map = coco_records(document, json_file=json_file, image_root="")
    check_for_metric(document, json_file)
    if not metadata.get("thing_dataset_id_to_contiguous_id"):
        set_classes(name, classes, id_map, f"{json_file}, which its metadata names,")
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
        file: upright_size(file)
        for file in (record["file_name"] for record in unsized)
        if not is_address(file)
    }
    if count := boxes_outside(unsized, sizes):
        raise DatasetError(
            f"{where}: {count} boxes lie outside of their image, which has no width and height "
            "there: add these, and the metric leaves such boxes out as training does."
        )


def _check_pictures(records: Sequence[dict], where: str, labeled: bool) -> Findings:
    """Look at the headers of some images, and compare all boxes with the sizes of the images."""
    sizes = {}
    local = [r for r in records if not is_address(r["file_name"])]
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
    return Findings(boxes, images, tuple(warnings))


def nothing_to_learn(names: Sequence[str]) -> str:
    """The sentence for training data without a box to learn from."""
    return (
        f"The training data {', '.join(map(repr, names))} has no box to learn from, crowds not "
        "counted. To distil from images without labels, name them in dataloader.train.unlabeled "
        "beside labelled ones, or set dataloader.train.mapper.labeled=False."
    )
