"""COCO 2017 with Detectron2's own augmentation: resized and flipped, no images without boxes.

A teacher gets the same images as its student. Their shortest edges, 640 to 800 pixels, are within
the range that a DETR teacher was trained with.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from kddetr.data import ShortestEdge

from .coco_detr import dataloader

dataloader.train.dataset.filter_empty = True
dataloader.train.mapper.augmentations = [
    L(ShortestEdge)(short_edge_length=list(range(640, 801, 32)), max_size=1333),
    L(T.RandomFlip)(),
]
dataloader.train.mapper.augmentations_with_crop = None
