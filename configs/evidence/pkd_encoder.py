"""Rival: feature imitation (PKD) of the encoder's maps, without distillation points."""

from detectron2.config import LazyCall as L

from kddetr.baselines import FeatureImitation, NoPoints

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.sampler = L(NoPoints)()
model.loss = L(FeatureImitation)(
    maps="encoder",
    weight=5.0,
    student_channels="${model.student.embed_dim}",
    teacher_channels="${model.teacher.detector.model.embed_dim}",
)
train.output_dir = "output/evidence/pkd_encoder"
