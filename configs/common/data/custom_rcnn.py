"""Your own data as in custom.py, with Detectron2's augmentation.

Images without boxes are kept, unlike in coco_rcnn.py, because the model learns your background
from them.
"""

from .coco_rcnn import dataloader as _rcnn
from .custom import dataloader

dataloader.train.mapper = _rcnn.train.mapper
