"""COCO 2017 with the augmentation of RT-DETR and D-FINE, which is that of SSD.

Images keep their size: a real-time detector resizes them itself, to a square, and a teacher of
another family is not given a stretched image. The original recipes end with some epochs without
the strong augmentation, which these do not.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from kddetr.data import IoUCrop, PhotometricDistort, ZoomOut

from .coco_detr import dataloader

dataloader.train.mapper.augmentations = [
    L(PhotometricDistort)(p=0.5),
    L(ZoomOut)(p=0.5),
    L(IoUCrop)(p=0.8),
    L(T.RandomFlip)(),
]
dataloader.train.mapper.augmentations_with_crop = None
dataloader.test.mapper.augmentations = []
