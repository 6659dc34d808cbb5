"""Weights of any known file, fitted to a model: the one way in for a checkpoint."""

import logging
from collections.abc import Mapping

import torch
from torch import nn

from ...errors import CheckpointError
from ..backbones import backbone_weights
from ..caffe2_names import caffe2_names, is_caffe2
from ..pretraining import check_pixels, check_pretraining
from .checks import check_backbone, check_classes, check_detector, check_sizes, check_width
from .classes import count_classes, to_contiguous
from .convert import converted
from .heads import count_heads, one_if_equal, spread

__all__ = ["adapted"]

_log = logging.getLogger(__name__)
_DINO = "query_source.content"
_DENOISING = "denoising."

State = Mapping[str, torch.Tensor]


def adapted(state: State, model: nn.Module, source: str, *, strict: bool = False) -> State:
    """A checkpoint's weights under the names, and with the classes and heads, of a model.

    A published detector is renamed, its 91 COCO category ids become 80 classes if the model has 80;
    an ImageNet backbone, and a Caffe2 detector of Detectron, get the names they have in the model;
    this project's own files, and those of Detectron2's model zoo, stay as they are. DINO's one set
    of heads is copied to each layer of a model that has one a layer.

    Args:
        state: weights by the names in the file.
        model: the model that they are for.
        source: the file's name, for messages.
        strict: whether all of it has to fit; otherwise heads of other classes, and layers, queries
            and levels that one of the two has not got, are left to be trained anew, with a warning.

    Returns:
        Weights to be loaded; a kind of file that is not known comes back as it is.

    Raises:
        CheckpointError: a published file with missing or strange names, of another detector or with
            another backbone; a file of another width, or with heads of its own for each layer where
            the model shares one; a backbone that was trained on other pixels than the model's, see
            `check_pretraining`; `strict` and other classes, layers, queries or levels.
    """
    check_pixels(state, model, source, strict=strict)
    check_pretraining(state, model, source)
    if is_caffe2(state):
        _log.info("%s is recognised as a Caffe2 model of Detectron.", source)
        state = caffe2_names(state, source)
    own = model.state_dict()
    found = converted(state, source, with_backbone=any(k.startswith("backbone.") for k in own))
    if found is None:
        bare = backbone_weights(state, model)
        if bare is not None:
            _log.info("%s is recognised as a backbone's weights.", source)
            check_backbone(bare, own, source, refuse=False)
            _check_regions(bare, own, source, strict=strict)
            return bare
    else:
        _log.info("%s is recognised as %s.", source, found)
        state = found.state
        if found.classes == 91 and count_classes(own) == 80:
            _log.info("%s: the 80 classes of COCO are taken from 91 category ids.", source)
            state = to_contiguous(state)
    if not (count_heads(state) and count_heads(own)):
        _check_regions(state, own, source, strict=strict)
        return state
    if found is not None:
        check_detector(state, own, source, str(found.origin))
    check_backbone(state, own, source, refuse=found is not None)
    check_width(state, own, source)
    check_sizes(state, own, source, strict=strict)
    check_classes(state, own, source, strict=strict)
    if found is not None or (_DINO in state and _DINO in own):
        state = _fit_heads(state, own, source)
    if found is not None and not any(name.startswith(_DENOISING) for name in own):
        state = {k: v for k, v in state.items() if not k.startswith(_DENOISING)}
    return state


def _check_regions(state: State, own: State, source: str, *, strict: bool) -> None:
    """The classes of two R-CNNs; whatever else differs, their names say."""
    rcnns = not (count_heads(state) or count_heads(own))
    if rcnns and count_classes(state) and count_classes(own):
        check_classes(state, own, source, strict=strict)


def _fit_heads(state: State, own: State, source: str) -> State:
    theirs, ours = count_heads(state), count_heads(own)
    if theirs == ours:
        return state
    if _DINO in state:
        if theirs == 1:
            _log.info("%s: its one set of heads is copied to %d decoder layers.", source, ours)
            return spread(state, ours)
        advice = "set model.shared_heads=False"
    elif theirs == 1:
        raise CheckpointError(
            f"{source} is a Deformable DETR without refinement, whose decoder layers share one "
            "head, and the model refines its boxes with a head for each; set model.variant=plain."
        )
    else:
        advice = "set model.variant=refine"
    if ours == 1:
        state = one_if_equal(state)
        if count_heads(state) != 1:
            raise CheckpointError(
                f"{source} has different heads for its {theirs} decoder layers and the model one "
                f"for all; {advice}."
            )
    return state
