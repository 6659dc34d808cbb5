"""RT-DETRv2 R18, 120 epochs, from DINO R50.

Batch, rate and schedule are those of the student alone: none have been published for this pair. The
teacher gets images of the sizes that it was trained with, and the student resizes them to a square.
"""

from detectron2.config import LazyCall as L

from kddetr.data import ShortestEdge

from ..common.kd_realtime import model
from ..detectors.dino_r50 import model as _teacher
from ..detectors.rtdetr_v2_r18 import dataloader, lr_multiplier, optimizer, train
from ..detectors.rtdetr_v2_r18 import model as _student

model.student = _student
model.teacher.model = _teacher
dataloader.train.mapper.augmentations.append(
    L(ShortestEdge)(short_edge_length=list(range(640, 801, 32)), max_size=1333)
)
train.output_dir = "output/rtdetr_v2_r18_from_dino_r50"
