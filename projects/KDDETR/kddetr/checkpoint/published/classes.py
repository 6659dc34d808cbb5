"""COCO's 80 classes among its 91 category ids.

Published heads often have one row per category id, 0 and ten ids being nothing; Detectron2 counts
the categories that there are.
"""

import re
from collections.abc import Mapping

import torch

__all__ = ["CATEGORY_IDS", "count_classes", "rows", "to_contiguous"]

_UNUSED = {0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
CATEGORY_IDS = [i for i in range(91) if i not in _UNUSED]

_BOX_PREDICTORS = ("roi_heads.box_predictor", "roi_heads.box_predictor.0")  # a cascade has more
_PER_CLASS = re.compile(
    r"decoder\.class_heads\.\d+\.(weight|bias)"
    r"|query_source\.proposals\.class_head\.(weight|bias)"
    r"|denoising\.label_embedding\.weight"
)


def rows(state: Mapping[str, torch.Tensor], name: str) -> int:
    """Length of a weight's first axis, 0 when there is none."""
    weight = state.get(name)
    return 0 if weight is None or not weight.ndim else len(weight)


def count_classes(state: Mapping[str, torch.Tensor]) -> int:
    """Foreground classes that the heads of a transformer or an R-CNN have rows for; 0: no heads."""
    box_heads = [f"{place}.cls_score.weight" for place in _BOX_PREDICTORS]
    of_regions = max(rows(state, name) for name in box_heads) - 1  # the background's
    return rows(state, "decoder.class_heads.0.weight") or max(of_regions, 0)


def to_contiguous(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows of 91 category ids become those of the 80 classes, in the order of the ids.

    Args:
        state: a detector's weights under this project's names, with 91 classes.
    """
    # The two-stage Deformable DETR finds objects of any kind with row 0 of its encoder's head; to
    # lose that one would be to lose them all. Its other rows were never trained.
    class_agnostic = "query_source.embed.weight" in state
    chosen = {
        name: list(range(80))
        if class_agnostic and name.startswith("query_source.")
        else CATEGORY_IDS
        for name in state
        if _PER_CLASS.fullmatch(name) and rows(state, name) == 91
    }
    return {name: value[chosen[name]] if name in chosen else value for name, value in state.items()}
