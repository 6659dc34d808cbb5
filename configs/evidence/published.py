"""KD-DETR with the reduction and the weights of the published code for DAB-DETR."""

from ..common.kd_detr_published import model as _published
from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.loss = _published.loss
train.output_dir = "output/evidence/published"
