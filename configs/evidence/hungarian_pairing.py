"""Control: the teacher's answers matched with the student's own predictions, without points."""

from detectron2.config import LazyCall as L

from kddetr.baselines import HungarianPairing, NoPoints

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.sampler = L(NoPoints)()
model.loss = L(HungarianPairing)(loss=model.loss)
train.output_dir = "output/evidence/hungarian_pairing"
