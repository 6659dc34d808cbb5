"""Control: KD-DETR whose teacher answers about another image, which must not help."""

from detectron2.config import LazyCall as L

from kddetr.baselines import ShuffledAnswers

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.loss = L(ShuffledAnswers)(loss=model.loss)
train.output_dir = "output/evidence/shuffled_answers"
