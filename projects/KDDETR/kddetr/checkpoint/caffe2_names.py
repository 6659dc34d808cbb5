"""Names of Detectron's Caffe2 models, from which Detectron2's detectors still start: MSRA's ResNets
and whole detectors.

Detectron2's own code renames the weights; this module does what that code leaves to its caller.
"""

import re

import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

from ..errors import CheckpointError
from .files import State

# An optimizer's state, what Detectron kept of the file from which it started, classifiers, and a
# bias in front of a batch norm, which no ResNet of Detectron has.
_LEFT_OUT = re.compile(r"_momentum$|^__preserve__/|^((fc1000|pred)_[wb]|conv1_b)$")
_STATISTICS = ("_bn_rm", "_bn_running_mean")
_SCALE = re.compile(r"_bn_(s|gamma)$")


def is_caffe2(state: State) -> bool:
    """Whether these are Caffe2's names of a ResNet, or of a detector that has one."""
    return "conv1_w" in state and "res2_0_branch2a_w" in state


def is_folded(state: State) -> bool:
    """Whether batch norms are stored as scale and shift alone, with their statistics multiplied in.

    It is so in the files of Detectron (``catalog://``), and not in those that Detectron2 made of
    them (``detectron2://ImageNetPretrained``).
    """
    return any(map(_SCALE.search, state)) and not any(n.endswith(_STATISTICS) for n in state)


def caffe2_names(state: State, source: str) -> dict[str, torch.Tensor]:
    """Caffe2's weights under Detectron2's names, without the prefix that they have in a model.

    ``fpn_inner_res2_2_sum_w`` becomes ``fpn_lateral2.weight``. The row of the background class is
    the last instead of the first, and left out where it has no meaning. Folded batch norms get mean
    0 and variance 1. Classifiers are left out.

    Raises:
        CheckpointError: two names become one, or a name or shape makes no sense.
    """
    kept = {name: value for name, value in state.items() if not _LEFT_OUT.search(name)}
    try:
        renamed, originals = convert_c2_detectron_names(kept)
    except (AssertionError, IndexError, ValueError) as error:
        raise CheckpointError(
            f"{source} has names of a Caffe2 model, but not all of them can be understood; take the"
            " file as Detectron wrote it."
        ) from error
    for name, original in originals.items():
        norm, _, part = name.rpartition(".")
        if part == "weight" and _SCALE.search(original):
            renamed.setdefault(f"{norm}.running_mean", torch.zeros_like(renamed[name]))
            renamed.setdefault(f"{norm}.running_var", torch.ones_like(renamed[name]))
    return renamed
