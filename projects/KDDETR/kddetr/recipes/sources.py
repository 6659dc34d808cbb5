"""The images of a training: labelled, for validation, and without labels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from ..data import (
    DataFolder,
    Finding,
    Split,
    find_data,
    load_coco_format,
    load_image_folder,
    register_coco_format,
)
from ..data.coco import read_coco_json
from ..data.folders import list_images
from ..data.inspection.pixels import equal_files
from ..engine import check_writable
from ..errors import DatasetError, UsageError
from .decisions import Decision
from .request import Request


@dataclass(frozen=True)
class Images:
    """What there is to train and to validate on.

    Attributes:
        folder: the labelled data; None where there are none.
        labeled, validated, unlabeled: numbers of images.
        unlabeled_root: the folder of the images without labels; empty without any.
        shared: how many images of the validation are also among those without labels.
    """

    folder: DataFolder | None
    labeled: int
    validated: int
    unlabeled: int
    unlabeled_root: str
    shared: int = 0

    @property
    def classes(self) -> list[str]:
        """The class names of the labelled data."""
        return list(self.folder.classes) if self.folder else []

    @property
    def findings(self) -> list[Finding]:
        """What the data report, which is about the labelled images, cannot find."""
        if not self.shared:
            return []
        sentence = (
            f"{self.shared} of the {self.validated} validation images are among those without"
            f" labels in {self.unlabeled_root}: results on what was trained on say little about"
            " other images; take them out of that folder."
        )
        return [Finding("shared images", "warning", sentence, count=self.shared)]

    @property
    def trained(self) -> int:
        """The number of training images, with and without labels."""
        return self.labeled + self.unlabeled


def find_images(request: Request) -> Images:
    """Find the images that a request names. Files that have to be converted are written below its
    output folder.

    Raises:
        DatasetError: a folder cannot be read, or there is nothing to train on.
        ConfigError: the output folder cannot be written to.
    """
    folder, root, files = None, "", list[Path]()
    if request.data:
        try:
            folder = find_data(request.data, Path(request.folder, "data"))
        except OSError:  # of the converted labels, which come last
            check_writable(request.folder)
            raise
    if request.unlabeled:
        root = str(Path(request.unlabeled).expanduser().resolve())
        files = list_images(root)[0]
    tested = folder and (folder.val or folder.test)
    labeled, validated = (
        len(read_coco_json(Path(split.json_file))["images"]) if split else 0
        for split in (folder and folder.train, tested)
    )
    if not request.teacher and not labeled:
        where = f"{request.data} has no training images" if request.data else "No data are named"
        raise DatasetError(
            f"{where}, and a detector alone learns from labels only: name a folder of labelled"
            " images with a training split."
        )
    if not labeled and not files:
        raise UsageError(
            f"There are no images to train on{' in ' * bool(request.data)}{request.data}: name a"
            " folder of labelled images, or one of images without labels with --unlabeled DIR."
        )
    shared = _shared(tested, files) if tested and files else 0
    return Images(folder, labeled, validated, len(files), root, shared)


def _shared(tested: Split, files: Sequence[Path]) -> int:
    """How many images of a split are among the files, or are copies of one of them."""
    names = [image["file_name"] for image in read_coco_json(Path(tested.json_file))["images"]]
    own = [os.path.join(tested.image_root, name) for name in names]
    sizes = {os.path.getsize(file) for file in own if os.path.isfile(file)}
    others = [str(file) for file in files if file.stat().st_size in sizes]
    mine, found = set(own), set(own).intersection(others)
    for group in equal_files([*own, *others], {}):
        if not mine.issuperset(group):
            found |= mine.intersection(group)
    return len(found)


def set_images(dataloader: DictConfig, images: Images) -> None:
    """Put the images into the section ``dataloader`` of a recipe, in place. The number of images
    in a batch must be set before; half of it becomes images without labels, where there are some.

    Raises:
        UsageError: a batch is too small for both.
    """
    train, folder = dataloader.train, images.folder
    if folder and folder.train:
        train.dataset = L(load_coco_format)(
            json_file=folder.train.json_file, image_root=folder.train.image_root
        )
        if images.unlabeled:
            if train.total_batch_size < 2:
                raise UsageError(
                    "A batch of one image has no room for one without labels: set"
                    " dataloader.train.total_batch_size=2 or more, or leave out --unlabeled."
                )
            train.unlabeled = L(load_image_folder)(image_root=images.unlabeled_root)
            train.unlabeled_per_batch = train.total_batch_size // 2
    else:
        train.dataset = L(load_image_folder)(image_root=images.unlabeled_root)
        train.mapper.labeled = False
    if not images.unlabeled or not images.labeled:
        for key in ("unlabeled", "unlabeled_mapper", "unlabeled_per_batch"):
            train.pop(key, None)
    tested = folder and (folder.val or folder.test)
    if not tested:
        dataloader.test = dataloader.evaluator = None
        return
    dataloader.test.dataset = L(load_coco_format)(
        json_file=tested.json_file, image_root=tested.image_root
    )
    dataloader.evaluator.dataset_name = L(register_coco_format)(
        json_file="${dataloader.test.dataset.json_file}",
        image_root="${dataloader.test.dataset.image_root}",
    )


def about_images(request: Request, images: Images) -> list[Decision]:
    """What was decided about the images, for the table."""
    found = []
    if folder := images.folder:
        value = f"{images.labeled} training and {images.validated} validation images"
        why = " ".join(folder.notes).rstrip(".") or "the splits of the folder"
        count = len(folder.classes)
        layout = f"{folder.layout} layout, {count} class{'es' * (count != 1)}"
        found.append(
            Decision("data", f"{value}; {layout}", why, "DATA", "dataloader.train.dataset")
        )
    if images.unlabeled:
        value = f"{images.unlabeled} images without labels"
        why = "half of each batch; the teacher alone teaches there"
        if images.shared:
            value += f", {images.shared} of the validation images among them"
        key, override = "dataloader.train.unlabeled", "dataloader.train.unlabeled_per_batch=N"
        if not images.labeled:
            why, key, override = "only the teacher teaches", "dataloader.train.dataset", "DATA"
            found = [one for one in found if one.key != key]
        found.append(Decision("unlabelled", value, why, override, key))
    if not images.validated:
        found.append(Decision("validation", "none", "there are no labels to compare with", "DATA"))
    return found
