"""Where the measured batches come from: random images of a size, or the config's own loader.

A source has ``name``, for the report, ``loads``, whether a batch is read from files, and ``next``.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from detectron2.structures import Boxes, Instances
from omegaconf import DictConfig, OmegaConf

from kddetr.data import DetectionMapper
from kddetr.engine import Trainer
from kddetr.engine.config.calls import located
from kddetr.errors import DatasetError, UsageError

DEFAULT_SIZE = (800, 1333)  # of the largest images that the recipes train with

Batch = list[dict[str, Any]]


class Source(Protocol):
    """Where batches come from."""

    name: str
    loads: bool

    def next(self) -> Batch:
        """The batch of the next repetition."""


class RandomImages:
    """One batch of random pixels with random objects, the same at every repetition.

    Args:
        size: (height, width).
        mixed: every second image has three quarters of the size.
        batch_size, boxes, num_classes: of the batch and of each of its images.
    """

    loads = False

    def __init__(
        self,
        *,
        size: tuple[int, int],
        mixed: bool = False,
        batch_size: int,
        boxes: int,
        num_classes: int,
    ) -> None:
        height, width = size
        smaller = (height * 3 // 4, width * 3 // 4) if mixed else size
        which = f"{height} x {width}" + (f" and {smaller[0]} x {smaller[1]}" if mixed else "")
        self.name = f"random images of {which} with {boxes} objects each"
        sizes = [smaller if i % 2 else size for i in range(batch_size)]
        self.batch = random_batch(sizes, boxes, num_classes)

    def next(self) -> Batch:
        """The batch."""
        return self.batch


class OwnImages:
    """The training batches of the config's own loader, without loading processes of its own, so
    that all work of loading is seen.
    """

    loads = True

    def __init__(self, loader: Any, name: str) -> None:
        self.name = name
        self.batches: Iterator[Batch] = iter(loader)

    def next(self) -> Batch:
        """The next batch of the training."""
        return next(self.batches)


def random_batch(sizes: Sequence[tuple[int, int]], boxes: int, classes: int) -> Batch:
    """Images of random pixels of these sizes, (height, width), with random boxes and classes."""
    batch = []
    for i, (height, width) in enumerate(sizes):
        low = torch.rand(boxes, 2) * 0.7
        corners = torch.cat([low, low + 0.05 + 0.25 * torch.rand(boxes, 2)], dim=1)
        scale = torch.tensor([width, height, width, height])
        pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
        objects = Instances((height, width))
        objects.gt_boxes = Boxes(corners * scale)
        objects.gt_classes = torch.randint(0, classes, (boxes,))
        given = {"image_id": i, "height": height, "width": width}
        batch.append({"image": pixels, "instances": objects, **given})
    return batch


def own_images(
    cfg: DictConfig, batch_size: int, size: tuple[int, int] | None = None
) -> tuple[OwnImages | None, str]:
    """The images of the config's loader; None where its data set is not there, and the reason.

    Args:
        cfg: the config, whose loader is changed in place: batch size and loading processes.
        batch_size: of the batches.
        size: (height, width) that all images are resized to; None: as the config augments them.

    Raises:
        UsageError: the images cannot be resized, because the loader has another mapper.
    """
    if OmegaConf.select(cfg, "dataloader.train") is None:
        return None, "the config has no dataloader.train"
    loader = cfg.dataloader.train
    for key, value in (("total_batch_size", batch_size), ("num_workers", 0)):
        if key in loader:
            loader[key] = value
    if "unlabeled_per_batch" in loader:
        loader.unlabeled_per_batch = min(loader.unlabeled_per_batch, batch_size - 1)
    if size is not None:
        _resize_all(loader, size)
    try:
        built = Trainer.build_train_loader(cfg)
    except (DatasetError, OSError) as error:
        return None, f"its data set cannot be read: {error}"
    resized = "" if size is None else f", resized to {size[0]} x {size[1]}"
    return OwnImages(built, f"images of the config's own loader{resized}"), ""


def _resize_all(loader: DictConfig, size: tuple[int, int]) -> None:
    for name in ("mapper", "unlabeled_mapper"):
        mapper = loader.get(name)
        if mapper is None:
            continue
        if located(mapper["_target_"]) is not DetectionMapper:
            raise UsageError(
                f"dataloader.train.{name} is no DetectionMapper, so its images cannot be resized:"
                " leave out --image-size, or --own-images."
            )
        mapper.augmentations = [L(T.Resize)(shape=list(size))]
        mapper.augmentations_with_crop = None
