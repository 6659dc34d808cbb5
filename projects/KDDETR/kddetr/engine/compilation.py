"""``torch.compile`` for the detector that is trained and for its teacher, as a switch.

The detectors compile their parts in place (:meth:`torch.nn.Module.compile`), so weights keep their
names, and checkpoints, evaluation and resuming are those of the plain detector.
"""

import logging

import torch
from omegaconf import DictConfig
from torch import nn
from torch._functorch import config as functorch_config

from ..checkpoint import deployable
from ..errors import ConfigError, one_line

_log = logging.getLogger(__name__)


def compile_detectors(wanted: DictConfig, model: nn.Module) -> None:
    """Compile what the section ``train.compile`` of a config wants, in place.

    The parts are translated at their first call, and again for images of another size, at most
    ``torch._dynamo.config.recompile_limit`` times; after that PyTorch warns and runs them plainly.

    Args:
        wanted: whether ``student`` and ``teacher`` are compiled.
        model: a detector, or a distiller around one.

    Raises:
        ConfigError: ``torch.compile`` does not work on this machine.
    """
    detectors = {"student": deployable(model), "teacher": getattr(model, "teacher", None)}
    chosen = {name: d for name, d in detectors.items() if wanted[name] and d is not None}
    if not chosen:
        return
    names = " and ".join(chosen)
    _check_compiler(next(model.parameters()).device, names)
    # The watch asks for gradients before the step does, and the compiler would reuse the memory of
    # what the step still needs. PyTorch's own message about it names this switch.
    functorch_config.donated_buffer = False
    for detector in chosen.values():
        detector.compile()
    _log.info("torch.compile: %s; the first steps take minutes (train.compile).", names)


def _check_compiler(device: torch.device, names: str) -> None:
    """Compile one line before anything else, because a failure would come in the first step."""
    try:
        torch.compile(lambda x: x.relu() + 1)(torch.ones(2, device=device))
    except Exception as error:  # of Python's version, of a compiler, of a driver
        raise ConfigError(
            f"train.compile is set for {names}, but torch.compile does not work here"
            f" ({one_line(str(error), 160)}): install a C++ compiler that PyTorch finds, or set"
            " train.compile.student=false train.compile.teacher=false."
        ) from error
