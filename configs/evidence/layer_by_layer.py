"""KD-DETR with each layer of the student against the teacher's layer of the same number."""

from detectron2.config import LazyCall as L

from kddetr.losses import LayerByLayer

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.loss = L(LayerByLayer)(loss=model.loss)
train.output_dir = "output/evidence/layer_by_layer"
