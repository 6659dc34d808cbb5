"""Rival: KD-DETR whose specific points have TPRD's refined targets and its class term.

TPRD's public code is this combination, with the reduction of per_image.py, and its general points
are compared layer against layer too.
"""

from detectron2.config import LazyCall as L

from kddetr.losses import ByGroup

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train
from .tprd import model as _rival

model.loss = L(ByGroup)(general=model.loss, specific=_rival.loss)
train.output_dir = "output/evidence/tprd_added"
