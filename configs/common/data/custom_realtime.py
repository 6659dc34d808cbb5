"""Your own data as in custom.py, with the augmentation of RT-DETR and D-FINE."""

from .coco_realtime import dataloader as _realtime
from .custom import dataloader

dataloader.train.mapper = _realtime.train.mapper
dataloader.test.mapper = _realtime.test.mapper
