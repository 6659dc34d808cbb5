"""What every detector demands of its inputs."""

from typing import Any

from detectron2.structures import Instances

from ..errors import UsageError


def check_images(inputs: list[dict[str, Any]]) -> None:
    """Raise UsageError if an input's image is not a (3, H, W) tensor with pixels."""
    for x in inputs:
        image = x["image"]
        if image.dim() != 3 or len(image) != 3 or not image.numel():
            raise UsageError(
                f"An image must be a (3, H, W) RGB tensor, not {tuple(image.shape)}:"
                " kddetr.data.read_image makes one of any file."
            )


def check_classes(instances: Instances, num_classes: int) -> None:
    """Raise UsageError if a box is of a class that the detector has not got."""
    classes = instances.gt_classes
    if len(classes) and int(classes.max()) >= num_classes:
        raise UsageError(
            f"An image has a box of class {int(classes.max())} and this detector knows"
            f" {num_classes} classes, counted from 0: set num_classes to the data's."
        )
