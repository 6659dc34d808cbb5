"""COCO 2017 as Detectron2's own recipes have it: resized, flipped, images without boxes left out.

A teacher reads the images that its student reads: these are larger than DETR's smallest.
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
