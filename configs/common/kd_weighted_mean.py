"""The distillation loss whose terms are means over the points, for any batch and number of
processes.
"""

from detectron2.config import LazyCall as L

from kddetr.losses import ForegroundWeight, GIoULoss, KLDivergence, L1Loss, WeightedMeanLoss

loss = L(WeightedMeanLoss)(
    class_loss=L(KLDivergence)(weight=10.0, temperature=10.0),
    box_losses=[L(L1Loss)(weight=5.0), L(GIoULoss)(weight=2.0)],
    weighting=L(ForegroundWeight)(),
)
