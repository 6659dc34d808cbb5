"""The student of trees_alone.py, distilled from the teacher of trees_teacher.py.

The images are augmented anew each time, so the teacher's encoder cannot be computed once. The KL
over a single class is always 0, so background is a second class here. Its weight is 1, not 10,
because the term is a mean over 2 instead of 10 classes: for a small difference of one logit at
T = 10, it is 14 times as large.
"""

from detectron2.config import LazyCall as L

from kddetr import KDDETR
from kddetr.checkpoint import load_pretrained
from kddetr.losses import KLWithBackground
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler

from ..common.kd_weighted_mean import loss as _loss
from .trees_alone import dataloader, lr_multiplier, optimizer, train
from .trees_alone import model as _student
from .trees_teacher import model as _teacher

_loss.class_loss = L(KLWithBackground)(weight=1.0, temperature=10.0)
model = L(KDDETR)(
    student=_student,
    teacher=L(load_pretrained)(
        model=_teacher, checkpoint="output/evidence/trees_teacher/model_final.pth"
    ),
    sampler=L(JointSampler)(samplers=[L(GeneralSampler)(count=50), L(SpecificSampler)()]),
    loss=_loss,
)
train.output_dir = "output/evidence/trees_distilled"
