"""Points and loss of the published code; teacher and student are those of the config.

The class term of the published loss is a sum over the images of a process: the more images a
process has, the more the term counts beside the others. The published command has 8 processes of 8
images at lr 2e-4; a second one, a debug run, has one process of 16 images, also at 2e-4. Code was
published for DAB-DETR only. With the points of another family (DINO: 900 specific ones in place of
300) the sum is larger, and no weight for it has been published.
"""

from detectron2.config import LazyCall as L

from kddetr import KDDETR
from kddetr.checkpoint import load_pretrained
from kddetr.losses import ForegroundWeight, GIoULoss, KLDivergence, L1Loss, PublishedLoss
from kddetr.points import GeneralSampler, JointSampler, SpecificSampler

model = L(KDDETR)(
    student=None,
    teacher=L(load_pretrained)(model=None, checkpoint=""),  # model.teacher.checkpoint=FILE
    sampler=L(JointSampler)(samplers=[L(GeneralSampler)(count=300), L(SpecificSampler)()]),
    loss=L(PublishedLoss)(
        class_loss=L(KLDivergence)(weight=1.0, temperature=10.0),
        box_losses=[L(L1Loss)(weight=5.0), L(GIoULoss)(weight=2.0)],
        weighting=L(ForegroundWeight)(),
    ),
)
