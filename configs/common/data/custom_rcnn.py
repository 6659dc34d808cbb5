"""Your own data as in custom.py, with Detectron2's augmentation.

Images without boxes stay: they show what background looks like, and are few or chosen by you.
"""

from .coco_rcnn import dataloader as _rcnn
from .custom import dataloader

dataloader.train.mapper = _rcnn.train.mapper
