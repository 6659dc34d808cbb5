"""A trained detector of another package, saved in the form of that package too."""

import logging
import os
from collections.abc import Sequence

from detectron2.engine import HookBase
from torch import nn

from ..checkpoint import deployable

FOLDER = "transformers"  # in the output folder of a run

_log = logging.getLogger(__name__)


def can_be_saved(model: nn.Module) -> bool:
    """Whether the detector has a form of its own: a real-time detector of transformers."""
    return callable(getattr(deployable(model), "save", None))


class PlainFolder(HookBase):
    """Writes the detector of a finished training as a folder that its package reads.

    Args:
        model: the detector, the distiller around it, or the detector with averaged weights.
        output_dir: of the run.
        classes: the names of its classes.
    """

    def __init__(self, model: nn.Module, output_dir: str, classes: Sequence[str]) -> None:
        self._model, self._classes = model, list(classes)
        self.folder = os.path.join(output_dir, FOLDER)

    def after_train(self) -> None:
        """Save, unless the training was stopped early."""
        if self.trainer.iter >= self.trainer.max_iter:  # below it after an error in the last step
            deployable(self._model).save(self.folder, self._classes)
            _log.info("The detector is saved as a folder of its package in %s", self.folder)
