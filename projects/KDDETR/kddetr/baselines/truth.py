"""The ground truth of a batch, for the methods that use it beside the teacher."""

import torch

from ..detectors.detr.matcher import Target, target_of
from ..structures import EncodedDetector


def ground_truth(encoded: EncodedDetector, device: torch.device) -> list[Target | None]:
    """The targets of each image on a device; None for an unlabelled image."""
    found = (x.get("instances") for x in encoded.inputs)
    return [None if x is None else target_of(x, device) for x in found]
