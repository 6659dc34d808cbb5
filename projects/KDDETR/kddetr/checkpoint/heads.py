"""The heads in a set of weights: their classes, and whether decoder layers share them.

Published heads often have one row per COCO category id, of which eleven are unused; Detectron2
counts the 80 classes that there are.
"""

import re
from collections.abc import Iterable

import torch

from .files import State

_UNUSED = {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORY_IDS = [i for i in range(91) if i not in _UNUSED]

_HEAD = re.compile(r"decoder\.(class|box)_heads\.(\d{1,2})\.(.+)")
_CLASS_HEADS = ("decoder.class_heads.0", "model.enc_score_head")  # the second one of the RT-DETRs
_BOX_PREDICTORS = ("roi_heads.box_predictor", "roi_heads.box_predictor.0")  # a cascade has more
_PER_CLASS = re.compile(
    r"decoder\.class_heads\.\d+\.(weight|bias)"
    r"|query_source\.proposals\.class_head\.(weight|bias)"
    r"|denoising\.label_embedding\.weight"
)


def rows(state: State, name: str) -> int:
    """Length of a weight's first axis, 0 when there is none."""
    weight = state.get(name)
    return 0 if weight is None or not weight.ndim else len(weight)


def count_parts(names: Iterable[str], place: str) -> int:
    """How many numbered parts a place has, e.g. ``decoder.layers``; numbers above 99 are
    ignored.
    """
    part = re.compile(rf"{re.escape(place)}\.(\d{{1,2}})\.")
    return max((int(match[1]) + 1 for match in filter(None, map(part.match, names))), default=0)


def count_classes(state: State) -> int:
    """Foreground classes that the heads of a transformer or an R-CNN have rows for; 0: no heads."""
    of_regions = max(rows(state, f"{place}.cls_score.weight") for place in _BOX_PREDICTORS)
    of_transformer = max(rows(state, f"{place}.weight") for place in _CLASS_HEADS)
    return of_transformer or max(of_regions - 1, 0)


def to_contiguous(state: State) -> dict[str, torch.Tensor]:
    """A transformer's weights with the rows of the 80 classes instead of 91 category ids."""
    # The two-stage Deformable DETR finds objects of any class with row 0 of its encoder's head; its
    # other rows were never trained.
    two_stage = "query_source.embed.weight" in state

    def chosen(name: str, value: torch.Tensor) -> torch.Tensor:
        if not _PER_CLASS.fullmatch(name) or rows(state, name) != 91:
            return value
        first = two_stage and name.startswith("query_source.")
        return value[list(range(80)) if first else CATEGORY_IDS]

    return {name: chosen(name, value) for name, value in state.items()}


def count_heads(names: Iterable[str]) -> int:
    """Class heads of the decoder, 0 when these are not the names of a transformer."""
    return len(_layers(names)["class"])


def _layers(names: Iterable[str]) -> dict[str, set[int]]:
    layers: dict[str, set[int]] = {"class": set(), "box": set()}
    for match in filter(None, map(_HEAD.fullmatch, names)):
        layers[match[1]].add(int(match[2]))
    return layers


def spread(state: State, count: int) -> dict[str, torch.Tensor]:
    """Copy heads that only one layer has to ``count`` layers; the copies share their tensors."""
    layers, spread_out = _layers(state), dict(state)
    for name, value in state.items():
        match = _HEAD.fullmatch(name)
        if match and len(layers[match[1]]) == 1:
            for layer in range(count):
                spread_out[f"decoder.{match[1]}_heads.{layer}.{match[3]}"] = value
    return spread_out


def one_if_equal(state: State) -> dict[str, torch.Tensor]:
    """The first head of each kind alone, where those of all layers are equal; else all weights."""
    rest = {}
    for name, value in state.items():
        match = _HEAD.fullmatch(name)
        if not match or int(match[2]) == 0:
            rest[name] = value
            continue
        first = state.get(f"decoder.{match[1]}_heads.0.{match[3]}")
        if first is None or first.shape != value.shape or not torch.equal(first, value):
            return dict(state)
    return rest
