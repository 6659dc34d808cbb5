"""Where the class names of data come from."""

from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import UsageError, did_you_mean
from .coco import coco_records, read_coco_json

Classes = str | Sequence[str]


def class_names(source: Classes) -> list[str]:
    """The class names of a list, a registered data set or a COCO-format JSON file.

    Raises:
        UsageError: ``source`` is none of these, or the data set has no names for its classes.
        DatasetError: the data set or the file cannot be read.
    """
    if not isinstance(source, str):
        return [str(name) for name in source]
    if source in DatasetCatalog.list():
        if not MetadataCatalog.get(source).get("thing_classes"):
            DatasetCatalog.get(source)  # reading a COCO file registers its class names
        if names := MetadataCatalog.get(source).get("thing_classes"):
            return list(names)
        raise UsageError(
            f"The data set {source!r} has no names for its classes: give a list of the names"
            " instead."
        )
    path = Path(source).expanduser()
    if path.suffix == ".json" or path.is_file():
        categories = read_coco_json(path)["categories"]
        document = {"images": [], "categories": categories}
        return coco_records(document, json_file=source, image_root="")[1]
    other = "or give a list of the class names."
    hint = did_you_mean(source, DatasetCatalog.list(), otherwise=other, count=3)
    raise UsageError(
        f"{source!r} is neither a registered data set nor a COCO-format JSON file; {hint}"
    )


def registered_classes(name: str) -> list[str]:
    """The class names of a registered data set; empty where they are not known.

    A file in COCO's format is read for them; any other data set is not.

    Raises:
        DatasetError: the file cannot be read.
    """
    metadata = MetadataCatalog.get(name)
    of_coco = metadata.get("json_file") and metadata.get("evaluator_type", "coco") == "coco"
    if not metadata.get("thing_classes") and of_coco and name in DatasetCatalog.list():
        DatasetCatalog.get(name)
    return [str(one) for one in MetadataCatalog.get(name).get("thing_classes") or ()]
