"""Loading a file of weights into a model: read, recognised, renamed, compared, copied.

A teacher that was loaded in part still predicts something, and a student would learn it; so
:func:`load_pretrained` accepts only a file that fits completely.
"""

import logging
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ..errors import CheckpointError
from .adapt import adapted
from .backbones import backbone_weights
from .caffe2_names import is_caffe2
from .classes import CLASSES, assumed_classes, classes_in
from .coverage import Coverage, load_weights
from .files import State, read_checkpoint
from .huggingface import is_huggingface, is_realtime
from .layouts import weights_of
from .prefixes import without_prefix
from .published import origin_of
from .settings import stated_settings

_log = logging.getLogger(__name__)


def deployable(model: nn.Module) -> nn.Module:
    """The detector inside ``model``: what is saved and evaluated, without training wrappers."""
    if isinstance(model, DistributedDataParallel | DataParallel):
        model = model.module
    return getattr(model, "deployable", model)


def weight_owner(model: nn.Module) -> nn.Module:
    """The module whose state dict is a detector's file.

    That is ``deployable(model)``, or the model of Detectron2 or of the package transformers that it
    wraps, so that the names in the file are those that other people have.
    """
    detector = deployable(model)
    return getattr(detector, "stock", detector)


def load_file(model: nn.Module, path: str, *, strict: bool) -> tuple[Coverage, dict[str, Any]]:
    """Load a checkpoint of any known kind into a module, see :func:`weight_owner`.

    Returns:
        How much of the model the file covers, and all that it holds; under ``classes`` the names of
        its classes, where they are known.

    Raises:
        CheckpointError: see :func:`read_checkpoint`, :func:`weights_of`, :func:`adapted` and
            :func:`load_weights`.
    """
    data = read_checkpoint(path)
    named, stated = weights_of(data, path), stated_settings(data)
    own = model.state_dict().keys()
    named = without_prefix(
        named, lambda names: len(names.keys() & own) or _known_otherwise(names, model), path
    )
    state = adapted(named, model, path, strict=strict, stated=stated)
    coverage = load_weights(model, state, strict=strict, source=path)
    classes = classes_in(data, path) or assumed_classes(named, state, path)
    data.pop(CLASSES, None)
    return coverage, data | ({CLASSES: classes} if classes else {})


def _known_otherwise(state: State, model: nn.Module) -> bool:
    """Whether a file has names of another kind that are translated into those of the model."""
    if is_huggingface(model):
        return is_realtime(state)
    return is_caffe2(state) or bool(origin_of(state)) or backbone_weights(state, model) is not None


def load_pretrained(model: nn.Module, checkpoint: str) -> nn.Module:
    """Load a detector's checkpoint strictly, and freeze the detector.

    Args:
        model: the detector, as its config builds it.
        checkpoint: its file, this project's own or a published one of the same detector.

    Returns:
        ``model``, in evaluation mode; none of its parameters requires a gradient. Its attribute
        ``trained_classes`` has the class names of the file, empty where they are not known.

    Raises:
        CheckpointError: no file is named, it cannot be read, or it does not fit completely; the
            message lists the names.
    """
    if not checkpoint:
        raise CheckpointError(
            f"A pretrained {type(model).__name__} needs a checkpoint, and none was named; name its "
            "file with the argument checkpoint (in a config model.teacher.checkpoint=FILE)."
        )
    coverage, data = load_file(weight_owner(model), checkpoint, strict=True)
    model.trained_classes = data.get(CLASSES, ())
    _log.info("pretrained %s from %s: %s", type(model).__name__, checkpoint, coverage.describe())
    return model.eval().requires_grad_(False)
