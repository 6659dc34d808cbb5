"""Tiles of aerial photographs with tree crowns, which tools/experiments/trees.py makes.

Flips and, in half of the images, a crop to three quarters, scaled up again, because the training
photograph has 574 crowns only. Colours vary too, because each photograph has a tint of its own: a
teacher that was trained without it found crowns by the tint of this one.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from kddetr.data import load_coco_format, register_coco_format

from .quickstart import dataloader

_FOLDER = "output/evidence/trees"
_flips = [L(T.RandomFlip)(), L(T.RandomFlip)(horizontal=False, vertical=True)]
_colours = [
    L(T.RandomBrightness)(intensity_min=0.7, intensity_max=1.3),
    L(T.RandomContrast)(intensity_min=0.7, intensity_max=1.3),
    L(T.RandomSaturation)(intensity_min=0.0, intensity_max=1.5),
]
_crop = L(T.RandomCrop)(crop_type="absolute", crop_size=(96, 96))
_enlarged = L(T.Resize)(shape=(128, 128))


def _tiles(split: str, **more):
    return L(load_coco_format)(
        json_file=f"{_FOLDER}/{split}.json", image_root=f"{_FOLDER}/tiles", **more
    )


dataloader.train.dataset = _tiles("train")
dataloader.train.unlabeled = _tiles("train_unlabeled", labeled=False)
for _mapper in (dataloader.train.mapper, dataloader.train.unlabeled_mapper):
    _mapper.augmentations = [*_colours, *_flips]
    _mapper.augmentations_with_crop = [*_colours, *_flips, _crop, _enlarged]
    _mapper.keep_images = True
dataloader.test.dataset = _tiles("val")
dataloader.evaluator.dataset_name = L(register_coco_format)(
    json_file="${dataloader.test.dataset.json_file}",
    image_root="${dataloader.test.dataset.image_root}",
)
