"""KD-DETR with the reduction and the weights of TPRD's public code for DINO, layer against layer.

There the KL is summed over the classes, 10 here, and the L1 distance over the 4 coordinates.
"""

from detectron2.config import LazyCall as L

from kddetr.losses import (
    ByGroup,
    ForegroundWeight,
    GIoULoss,
    KLDivergence,
    L1Loss,
    LayerByLayer,
    PerImageLoss,
)

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train


def _loss(classes: float, bbox: float, giou: float):
    return L(PerImageLoss)(
        class_loss=L(KLDivergence)(weight=10 * classes, temperature=10.0),
        box_losses=[L(L1Loss)(weight=4 * bbox), L(GIoULoss)(weight=giou)],
        weighting=L(ForegroundWeight)(),
    )


model.loss = L(LayerByLayer)(
    loss=L(ByGroup)(general=_loss(4.0, 5.0, 2.0), specific=_loss(4.0, 20.0, 8.0))
)
train.output_dir = "output/evidence/per_image"
