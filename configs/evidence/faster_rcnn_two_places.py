"""The Faster R-CNN asked for classes at the teacher's boxes, and for boxes at moved ones."""

from detectron2.config import LazyCall as L

from kddetr.baselines import AtMovedBoxes
from kddetr.losses import (
    ForegroundWeight,
    GIoULoss,
    KLDivergence,
    L1Loss,
    SumOfLosses,
    WeightedMeanLoss,
)

from ..quickstart.faster_rcnn_distilled import dataloader, lr_multiplier, model, optimizer, train

model.query_placement.shift = 0.0
model.query_placement.scale = 0.0
model.loss = L(SumOfLosses)(
    losses=[
        L(WeightedMeanLoss)(
            class_loss=L(KLDivergence)(weight=10.0, temperature=10.0),
            box_losses=[],
            weighting=L(ForegroundWeight)(),
        ),
        L(AtMovedBoxes)(
            loss=L(WeightedMeanLoss)(
                class_loss=L(KLDivergence)(weight=0.0),
                box_losses=[L(L1Loss)(weight=5.0), L(GIoULoss)(weight=2.0)],
                weighting=L(ForegroundWeight)(),
            )
        ),
    ]
)
train.output_dir = "output/evidence/faster_rcnn_two_places"
