"""The images of a training: labelled, for validation, and without labels."""

from dataclasses import dataclass
from pathlib import Path

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from ..data import (
    DataFolder,
    find_data,
    load_coco_format,
    load_image_folder,
    register_coco_format,
)
from ..data.coco import read_coco_json
from ..data.folders import list_images
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
    """

    folder: DataFolder | None
    labeled: int
    validated: int
    unlabeled: int
    unlabeled_root: str

    @property
    def classes(self) -> list[str]:
        """The class names of the labelled data."""
        return list(self.folder.classes) if self.folder else []

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
    folder, unlabeled, root = None, 0, ""
    if request.data:
        try:
            folder = find_data(request.data, Path(request.folder, "data"))
        except OSError:  # of the converted labels, which come last
            check_writable(request.folder)
            raise
    if request.unlabeled:
        root = str(Path(request.unlabeled).expanduser().resolve())
        unlabeled = len(list_images(root)[0])
    labeled, validated = (
        len(read_coco_json(Path(split.json_file))["images"]) if split else 0
        for split in ((folder.train, folder.val or folder.test) if folder else (None, None))
    )
    if not request.teacher and not labeled:
        where = f"{request.data} has no training images" if request.data else "No data are named"
        raise DatasetError(
            f"{where}, and a detector alone learns from labels only: name a folder of labelled"
            " images with a training split."
        )
    if not labeled and not unlabeled:
        raise UsageError(
            f"There are no images to train on{' in ' * bool(request.data)}{request.data}: name a"
            " folder of labelled images, or one of images without labels with --unlabeled DIR."
        )
    return Images(folder, labeled, validated, unlabeled, root)


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
        key, override = "dataloader.train.unlabeled", "dataloader.train.unlabeled_per_batch=N"
        if not images.labeled:
            why, key, override = "only the teacher teaches", "dataloader.train.dataset", "DATA"
            found = [one for one in found if one.key != key]
        found.append(Decision("unlabelled", value, why, override, key))
    if not images.validated:
        found.append(Decision("validation", "none", "there are no labels to compare with", "DATA"))
    return found
