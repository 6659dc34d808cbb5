"""The same student on the same images, distilled from the bundled teacher."""

from detectron2.config import LazyCall as L

from kddetr import KDDETR
from kddetr.checkpoint import load_pretrained
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler
from kddetr.teachers import CachedEncoder

from ..common.kd_weighted_mean import loss as _loss
from .alone import dataloader, lr_multiplier, optimizer, train
from .models import student as _student
from .models import teacher as _teacher

train.output_dir = "output/quickstart/distilled"

model = L(KDDETR)(
    student=_student,
    teacher=L(CachedEncoder)(
        detector=L(load_pretrained)(model=_teacher, checkpoint="kddetr://quickstart_teacher.pth")
    ),
    sampler=L(JointSampler)(samplers=[L(GeneralSampler)(count=50), L(SpecificSampler)()]),
    loss=_loss,
)
