"""Freezing parts of a detector by name: ``train.freeze`` of a config.

A frozen weight is in no optimizer. A frozen batch normalisation also keeps its statistics and
normalises with them, as in evaluation.
"""

import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase

from detectron2.engine import HookBase
from torch import nn

from ..checkpoint import weight_owner
from ..errors import ConfigError, did_you_mean

_log = logging.getLogger(__name__)
# The base class of batch and instance normalisation, synchronised over the processes or not.
_WITH_STATISTICS = nn.modules.batchnorm._NormBase


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the weights that the patterns name, before an optimizer is built over the others.

    Args:
        model: a detector, or a distiller around one, of which the student is meant.
        patterns: names of weights or of modules as in the detector's checkpoint, in which ``*``
            stands for any characters; a module stands for all that is in it.

    Raises:
        ConfigError: a pattern names nothing, or nothing is left to train.
    """
    if not patterns:
        return
    detector = weight_owner(model)
    # A weight that two modules share has two names in a checkpoint.
    weights = list(detector.named_parameters(remove_duplicate=False))
    modules = [name for name, _ in detector.named_modules(remove_duplicate=False) if name]
    names = [*modules, *(name for name, _ in weights)]
    for pattern in patterns:
        if not any(_matches(name, pattern) for name in names):
            near = [name for name in names if name.count(".") <= pattern.count(".")]
            hint = did_you_mean(pattern, near, count=3)
            raise ConfigError(
                f"train.freeze names {pattern}, which is no weight or module of the"
                f" {type(detector).__name__}; {hint} (An asterisk stands for any characters.)"
            )
    for name, parameter in weights:
        if any(_matches(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    left = [p.numel() for p in detector.parameters() if p.requires_grad]
    if not left:
        raise ConfigError(
            f"train.freeze={list(patterns)} leaves nothing of the {type(detector).__name__} to"
            " train: name fewer parts of it."
        )
    _log.info("train.freeze leaves %.2f M parameters to train", sum(left) / 1e6)


def frozen_norms(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """The normalisations with statistics that the patterns name, by themselves or by all of their
    weights.
    """
    found = []
    for name, module in weight_owner(model).named_modules(remove_duplicate=False):
        if not isinstance(module, _WITH_STATISTICS):
            continue
        own = [f"{name}.{weight}" for weight, _ in module.named_parameters()]
        if all(any(_matches(one, pattern) for pattern in patterns) for one in own or [name]):
            found.append(module)
    return found


class FreezeHook(HookBase):
    """Keeps frozen normalisations in evaluation mode, in which their statistics stay.

    Each step asks for it again, because an evaluation puts the whole model back into training mode.
    """

    def __init__(self, norms: Sequence[nn.Module]):
        self._norms = norms

    def before_step(self) -> None:
        for norm in self._norms:
            norm.eval()


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
