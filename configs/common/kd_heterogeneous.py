"""Points, places and loss for a student that judges regions; both detectors are the config's.

The paper distils into Faster R-CNN and has published neither code nor numbers for it: places,
terms and weights were chosen on the bundled toy data (docs/heterogeneous.md), not tried on COCO.
The terms are means, so they hold for any batch and number of processes.
"""

from detectron2.config import LazyCall as L

from kddetr.points import AtAnswers

from .kd_detr_published import model
from .kd_weighted_mean import loss as _loss

model.sampler.samplers[1].count = 300  # of a DINO's 900 proposals the best
model.query_placement = L(AtAnswers)()
model.loss = _loss
