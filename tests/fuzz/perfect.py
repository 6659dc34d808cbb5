"""What is to be seen in a data set, and whether training and evaluation agree with it.

The truth is gathered by the files of the images, because a detector sees pictures and not entries.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from kddetr.data import DetectionMapper, check_dataset
from kddetr.engine import CocoEvaluator
from kddetr.errors import UserError
from tests.fuzz.hunt import BrokenError, fault

Box = tuple[float, float, float, float]  # corners x0, y0, x1, y1 in pixels

LEAST_SIDE = 1e-3  # pixels
SIZES = {"a.png": (32, 24), "b.png": (24, 40), "c.jpg": (64, 48), "sub/d.png": (20, 20)}
# Names that are odd, and right.
SIZES |= dict.fromkeys(("a b.png", "a%20b.png", "\u00fc.png", "\U0001f600.png"), (32, 24))


@dataclass
class Truth:
    """The objects of every picture below ``root``.

    Attributes:
        objects: by the real path of a picture, the class name and the box of each of its objects.
        ids: by the same path, the ids of the images that name it.
        category_ids: by class name; empty: not compared.
    """

    root: Path
    objects: dict[str, list[tuple[str, Box]]] = field(default_factory=lambda: defaultdict(list))
    ids: dict[str, list] = field(default_factory=lambda: defaultdict(list))
    category_ids: dict[str, Any] = field(default_factory=dict)

    def add_image(self, file: str, image_id: Any) -> str:
        """The real path of a picture."""
        path = os.path.realpath(self.root / file)
        self.ids[path].append(image_id)
        return path

    def add_box(self, path: str, name: str, box: Box) -> None:
        """Add a box of a picture if there is something to be seen in it."""
        x0, y0, x1, y1 = clipped(box, path)
        if min(x1 - x0, y1 - y0) > LEAST_SIDE:
            self.objects[path].append((name, box))


def is_set(flag: Any) -> bool:
    """Whether a flag such as ``iscrowd`` says yes."""
    return flag.strip() not in ("", "0") if isinstance(flag, str) else bool(flag)


def clipped(box: Box, path: str) -> Box:
    """The part of a box that is inside of its picture."""
    width, height = _size(path)
    limits = (width, height, width, height)
    return tuple(min(max(n, 0), limit) for n, limit in zip(box, limits, strict=True))


@cache
def _size(path: str) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def write_images(root: Path) -> Path:
    """Write the pictures, and a file that is none."""
    (root / "sub").mkdir()
    for index, (name, size) in enumerate(SIZES.items()):
        Image.new("RGB", size, (30 * index, 90, 200)).save(root / name)
    (root / "notes.txt").write_text("no picture")
    return root


def registered_names() -> set[str]:
    """The names of all registered data sets."""
    return set(DatasetCatalog.list())


def unregister(names: Iterable[str]) -> None:
    """Forget data sets."""
    for name in names:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)


def class_names(name: str) -> list[str]:
    """The names of the classes, or where none are known their numbers."""
    return list(map(str, MetadataCatalog.get(name).get("thing_classes") or range(99)))


def judge(
    name: str, read: Callable[[], list[dict]], truth: Callable[[], Truth], folder: Path
) -> None:
    """Use a data set as a program does, for training and for evaluation.

    Args:
        name: the name of the data set.
        read: gives its dataset dicts.
        truth: what is in it; asked where it is accepted.
        folder: for the results.

    Raises:
        UserError: it is refused, for both uses, before a model would see it.
        BrokenError: it is accepted and used in a wrong way.
    """
    refusals: list[UserError] = []
    for use in (_train, _evaluate):
        try:
            use(name, read, truth, folder)
        except UserError as error:
            refusals.append(error)
    faulty = [error for error in refusals if fault(str(error))]
    if faulty or len(refusals) == 2:
        raise (faulty or refusals)[0]


def _train(name: str, read: Callable, truth: Callable, folder: Path) -> None:
    check_dataset(name, for_training=True)
    mapper = DetectionMapper(is_train=True, augmentations=[])
    mapped = [mapper(record) for record in read()]
    known, names = truth(), class_names(name)
    for item in mapped:
        path = os.path.realpath(item["file_name"])
        found = item["instances"]
        boxes, classes = found.gt_boxes.tensor.tolist(), found.gt_classes.tolist()
        trained = sorted(zip((names[c] for c in classes), boxes, strict=True))
        wanted = sorted((kind, clipped(box, path)) for kind, box in known.objects[path])
        same = len(trained) == len(wanted) and all(
            a == b and all(math.isclose(m, n, abs_tol=1e-3) for m, n in zip(p, q, strict=True))
            for (a, p), (b, q) in zip(trained, wanted, strict=True)
        )
        if not same:
            raise BrokenError(f"wrong objects in training: {path}: {trained}, not {wanted}")


def _evaluate(name: str, read: Callable, truth: Callable, folder: Path) -> None:
    check_dataset(name, for_evaluation=True)
    mapper = DetectionMapper(is_train=False, augmentations=[])
    mapped = [mapper(record) for record in read()]
    known, names = truth(), class_names(name)
    try:
        results = _results(name, mapped, known, names, folder)
    except UserError as error:
        raise BrokenError(f"refused only after an evaluation: {error}") from error
    if any(known.objects.values()):
        _check_results(results, known, names)
        _check_saved(folder / "coco_instances_results.json", known)


def _results(
    name: str, mapped: list[dict], known: Truth, names: list[str], folder: Path
) -> dict[str, float]:
    """The metric of a detector that finds exactly the objects."""
    evaluator = CocoEvaluator(name, str(folder))
    evaluator.reset()
    for item in mapped:
        objects = known.objects[os.path.realpath(item["file_name"])]
        found = Instances((item["height"], item["width"]))
        boxes = torch.tensor([box for _, box in objects], dtype=torch.float64)
        found.pred_boxes = Boxes(boxes.reshape(-1, 4))
        found.scores = torch.full((len(objects),), 0.9)
        found.pred_classes = torch.tensor([names.index(kind) for kind, _ in objects]).long()
        evaluator.process([item], [{"instances": found}])
    return evaluator.evaluate().get("bbox", {})


def _check_results(results: dict[str, float], known: Truth, names: list[str]) -> None:
    if not results.get("AP", math.nan) > 99.999:
        raise BrokenError(f"a perfect detector has less than AP 100: {results.get('AP')}")
    seen = {kind for objects in known.objects.values() for kind, _ in objects}
    single = {f"AP-{kind}": results.get(f"AP-{kind}", math.nan) for kind in sorted(seen)}
    if len(names) > 1 and not all(value > 99.999 for value in single.values()):
        raise BrokenError(f"a perfect detector has less than AP 100 of a class: {single}")


def _check_saved(file: Path, known: Truth) -> None:
    wanted = [
        _words(image_id, known.category_ids.get(kind))
        for path, objects in known.objects.items()
        for image_id in known.ids[path]
        for kind, _ in objects
    ]
    saved = json.loads(file.read_text())
    given = [
        _words(result["image_id"], result["category_id"] if known.category_ids else None)
        for result in saved
    ]
    if sorted(given) != sorted(wanted):
        raise BrokenError(f"saved results have other ids: {given}, not {wanted}")


def _words(*ids: Any) -> str:
    """Ids in words that tell a number from a text; numpy's numbers are numbers."""
    return repr([value.item() if hasattr(value, "item") else value for value in ids])
