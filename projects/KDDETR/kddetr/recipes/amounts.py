"""How many images, at which size and for how many iterations: what a recipe for COCO becomes on
other data and another machine.
"""

import math
import os
from typing import Any

import torch
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf

from ..data import ShortestEdge

COCO_IMAGES = 118_287
SHORT, LONG = 800, 1333  # pixels of an image in the published recipes
LARGEST_BATCH = 16
# The most epochs. With 300 one begins with YOLOv5, says its guide; 100 is the default with which
# Ultralytics' later YOLOs and RF-DETR go on from a detector that was trained on COCO.
EPOCHS, EPOCHS_OF_DETECTOR = 300, 100
# Memory of an image of 800 x 1333 pixels in a training step with a teacher: the most that was
# measured of the pairs in docs/performance.md (DINO R18 from R50 at 640 x 640, float32), by area.
GIB_PER_IMAGE = 4.0
_USABLE = 0.8  # of a card's memory: weights, the optimizer's states and gaps take the rest
_ON_CPU = 4


def iterations(published: int, images: int, batch: int, epochs: int = EPOCHS) -> tuple[int, str]:
    """The length of a run on a data set of another size than COCO, and why.

    It is multiplied by the square root of the number of images: half-way, on a logarithmic scale,
    between keeping the epochs, with which small data are left before anything is learned, and
    keeping the iterations, with which they are seen thousands of times. For 1,000 images the 12
    epochs of a DINO become 130. There are at most ``epochs``, or as many as published.

    Args:
        published: iterations of the recipe on COCO's 118,287 images, at the batch that is used.
        images: of the training, with and without labels.
        batch: images of an iteration.
        epochs: :data:`EPOCHS`, or :data:`EPOCHS_OF_DETECTOR` where a trained detector goes on.
    """
    scaled = max(1, round(published * math.sqrt(images / COCO_IMAGES)))
    most = max(1, round(max(epochs * images, published * batch * images / COCO_IMAGES) / batch))
    passes = f"{min(scaled, most) * batch / images:.0f} epochs of {images} images"
    if most < scaled:
        return most, f"{passes}, which is the most; see docs/your_own_data.md"
    return scaled, (
        f"{passes}: the published length times the square root of images / COCO's {COCO_IMAGES:,}"
    )


def batch_size(device: torch.device, num_gpus: int, images: int, short: int) -> tuple[int, str]:
    """Images of an iteration over all processes, and why.

    Args:
        device: of the training.
        num_gpus: processes.
        images: labelled training images, which are at least as many as a batch has.
        short: the short side of an image in pixels; 0: not known.
    """
    gib = GIB_PER_IMAGE * ((short or SHORT) / SHORT) ** 2
    if device.type == "cuda":
        memory = min(
            torch.cuda.get_device_properties(i).total_memory
            for i in range(min(num_gpus, torch.cuda.device_count()))
        )
        fitting = max(1, int(_USABLE * memory / 2**30 / gib))
        why = f"{memory / 2**30:.0f} GiB of a card, {gib:.1f} for an image"
        most = LARGEST_BATCH // num_gpus
    else:
        fitting, why, most = _ON_CPU, "a step on a CPU takes as long as its images together", 16
    each = max(1, min(fitting, most, max(1, images // num_gpus)))
    each = 2 ** int(math.log2(each))
    if each * num_gpus == LARGEST_BATCH:
        why = "as in the published recipes"
    return each * num_gpus, why


def resizes(dataloader: DictConfig) -> bool:
    """Whether the mappers of a recipe resize images; some detectors do it themselves."""
    steps = dataloader.test.mapper.augmentations
    return any(step["_target_"] is ShortestEdge for step in steps)


def image_size(loader: DictConfig | None) -> tuple[int, int] | None:
    """The short side in pixels to which a loader of test images resizes them, and the most that
    the long side may be; None where it does not resize.
    """
    for step in (loader and loader.mapper.get("augmentations")) or ():
        length = step.get("short_edge_length")
        if length is not None:
            short = int(length if isinstance(length, int) else max(length))
            return short, int(step.get("max_size") or 2**31)
    return None


def set_image_size(dataloader: DictConfig, short: int) -> None:
    """Scale the resizing and cropping of a recipe for a short side of 800 pixels, in place.

    Args:
        dataloader: the section, with the mappers of a published recipe.
        short: the short side of a test image in pixels; 0 leaves all images as large as they are.
    """
    for mapper in (dataloader.train.mapper, dataloader.test.mapper):
        for key in ("augmentations", "augmentations_with_crop"):
            steps = mapper.get(key)
            if steps is None:
                continue
            if not short:
                kept = [s for s in steps if s["_target_"] not in (ShortestEdge, T.RandomCrop)]
                mapper[key] = kept if key == "augmentations" else None
                continue
            for step in steps:
                _scale(step, short / SHORT)


def _scale(step: Any, ratio: float) -> None:
    for key in ("short_edge_length", "max_size", "crop_size"):
        value = step.get(key)
        if OmegaConf.is_list(value):
            scaled = [max(1, round(one * ratio)) for one in value]
            step[key] = scaled if key == "crop_size" else sorted(set(scaled))
        elif value:
            step[key] = max(1, round(value * ratio))


def loading_processes() -> int:
    """Processes that load images beside the training."""
    return min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 4)
