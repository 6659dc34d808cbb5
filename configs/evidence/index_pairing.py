"""Control: own query i of the student against own query i of the teacher, without points."""

from detectron2.config import LazyCall as L

from kddetr.baselines import IndexPairing, NoPoints

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.sampler = L(NoPoints)()
model.loss = L(IndexPairing)(loss=model.loss)
train.output_dir = "output/evidence/index_pairing"
