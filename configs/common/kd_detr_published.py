"""Points and loss as the published code has them; the teacher and the student are the config's.

The class term of the published reduction is a sum over the images of a process. The published
commands have 8 processes of 8 images at lr 2e-4, or one of 16 at 1e-4: with fewer images a process
it counts less beside the other terms. Code was published for DAB-DETR alone; with another family's
points (DINO: 900 specific ones in place of 300) the sum is larger, and nobody has published what
its weight was there.
"""

from detectron2.config import LazyCall as L

from kddetr import KDDETR
from kddetr.checkpoint import load_pretrained
from kddetr.losses import DistillationLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler

model = L(KDDETR)(
    student=None,
    teacher=L(load_pretrained)(model=None, checkpoint=""),  # model.teacher.checkpoint=FILE
    sampler=L(JointSampler)(samplers=[L(GeneralSampler)(count=300), L(SpecificSampler)()]),
    loss=L(DistillationLoss)(reduction="published"),
)
