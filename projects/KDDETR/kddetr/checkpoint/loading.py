"""A pretrained detector from a file of its weights, whole or not at all.

A teacher that was loaded in part still gives answers, and a student would learn them; so this is
the one way to get a teacher, and it accepts only a file that fits to the last name.
"""

import logging

from torch import nn

from ..errors import CheckpointError
from .checkpointer import weight_owner
from .coverage import load_weights
from .files import read_checkpoint, weights_of
from .published import adapted

__all__ = ["load_pretrained"]


def load_pretrained(model: nn.Module, checkpoint: str) -> nn.Module:
    """Load a detector's checkpoint strictly, and freeze the detector.

    Args:
        model: the detector, as its config builds it.
        checkpoint: its file, this project's own or a published one of the same detector.

    Returns:
        `model`, in evaluation mode, no parameter of it requiring a gradient.

    Raises:
        CheckpointError: no file is named, it cannot be read, it is another detector's, of another
            width or of other classes, or a weight is missing, left over or of another shape; the
            message lists the names.
    """
    if not checkpoint:
        raise CheckpointError(
            f"A pretrained {type(model).__name__} needs a checkpoint, and none was named; set "
            "model.teacher.checkpoint=FILE (a teacher with random weights has nothing to teach)."
        )
    state = weights_of(read_checkpoint(checkpoint), checkpoint)
    owner = weight_owner(model)
    state = adapted(state, owner, checkpoint, strict=True)
    coverage = load_weights(owner, state, strict=True, source=checkpoint)
    logging.getLogger(__name__).info(
        "pretrained %s from %s: %s", type(model).__name__, checkpoint, coverage.describe()
    )
    return model.eval().requires_grad_(False)
