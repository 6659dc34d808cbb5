"""Distilled from the record, with the student asked near the answers, as for a file of results."""

from detectron2.config import LazyCall as L

from kddetr.points import AtAnswers

from .distilled_recorded import dataloader, lr_multiplier, model, optimizer, train

model.query_placement = L(AtAnswers)()
train.output_dir = "output/quickstart/distilled_recorded_at_answers"
