r"""Your own data in COCO's JSON format, with DETR's augmentation.

    python train_net.py --config-file CONFIG.py \
        dataloader.train.dataset.json_file=my/train.json \
        dataloader.train.dataset.image_root=my/images \
        dataloader.test.dataset.json_file=my/val.json dataloader.test.dataset.image_root=my/images

Set the model's num_classes to the number of categories in your file. Without the last two keys the
run is not evaluated.
"""

from detectron2.config import LazyCall as L

from kddetr.data import load_coco_format, register_coco_format

from .coco_detr import dataloader

dataloader.train.dataset = L(load_coco_format)(json_file="", image_root="")
dataloader.test.dataset = L(load_coco_format)(json_file="", image_root="")
dataloader.evaluator.dataset_name = L(register_coco_format)(
    json_file="${dataloader.test.dataset.json_file}",
    image_root="${dataloader.test.dataset.image_root}",
)
