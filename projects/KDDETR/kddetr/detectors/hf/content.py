"""The content of a query at a given box: which token of the encoder it is taken from.

A query of RT-DETR's own is a token that the encoder's head has selected: its box is the one that
the token predicts, and its content what the head sees of the token. So a query at another box takes
its content from the token that stands for this box.

Shape letters: B images, N queries, S tokens.
"""

import torch
from torch import Tensor

from ...boxes import box_giou
from .memory import Ranking

PREDICTION, ANCHOR = "prediction", "anchor"
CONTENTS = (PREDICTION, ANCHOR)


def tokens_of_boxes(ranking: Ranking, boxes: Tensor, content: str) -> Tensor:
    """(B, N) tokens that stand for (B, N, 4) boxes.

    Args:
        ranking: of the B images.
        boxes: ``cxcywh`` in [0, 1].
        content: "prediction": the token whose predicted box is most like the given one, by GIoU. At
            the boxes of the detector's own queries these are the tokens that they were made of.
            "anchor": the token whose anchor is most like it, the cell at the centre of the box on
            the level that fits its size, whatever the token predicts.
    """
    known = ranking.boxes if content == PREDICTION else ranking.anchors
    known = known.detach().float().sigmoid().expand(len(boxes), -1, -1)
    boxes = boxes.detach().float()
    found = []
    # One image at a time: (N, S) overlaps of a batch would take gigabytes.
    for asked, candidates in zip(boxes, known):
        alike = box_giou(asked[:, None], candidates[None])
        found.append(alike.masked_fill(~ranking.usable, -torch.inf).argmax(1))
    return torch.stack(found)
