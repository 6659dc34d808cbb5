"""The images of a batch and their ground truth, for the methods that use more than predictions."""

import torch

from ..detectors.detr.matcher import Target, target_of
from ..errors import UsageError
from ..returned import part_name
from ..structures import EncodedDetector, Predictions


def encoded_of(predictions: Predictions, user: object) -> EncodedDetector:
    """The encoded images that predictions are about.

    Args:
        predictions: of the student or the teacher.
        user: what needs them, for the message.

    Raises:
        UsageError: these predictions are not bound to images.
    """
    if predictions.encoded is None:
        raise UsageError(
            f"{part_name(user)} needs the images of the predictions, and these predictions are not"
            " bound to images, because they were made without a distiller or chosen by of_images:"
            " do not put it inside of ShuffledAnswers."
        )
    encoded: EncodedDetector = predictions.encoded
    return encoded


def ground_truth(encoded: EncodedDetector, device: torch.device) -> list[Target | None]:
    """The targets of each image on a device; None for an unlabelled image."""
    found = (x.get("instances") for x in encoded.inputs)
    return [None if x is None else target_of(x, device) for x in found]
