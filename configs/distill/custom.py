r"""A small student, distilled from a teacher of your own on COCO-format data of your own.

    python train_net.py --config-file configs/distill/custom.py \
        model.teacher.checkpoint=TEACHER.pth model.student.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

Images without labels can be added: dataloader.train.unlabeled.image_root=MORE
dataloader.train.unlabeled_per_batch=8. The terms of the distillation loss are means, so the config
holds for any batch size and number of processes.
"""

from ..common.data.custom import dataloader
from ..common.kd_weighted_mean import loss as _loss
from .deformable_detr_refine_r18_from_deformable_detr_refine_r50 import (
    lr_multiplier,
    model,
    optimizer,
    train,
)

model.teacher.model.num_classes = "${model.student.num_classes}"
model.loss = _loss

train.output_dir = "output/custom"
train.batch_scaling.reference = dataloader.train.total_batch_size
optimizer.lr = 1e-4  # for 16 images, as in detrex
train.max_iter = 50000
train.eval_period = 5000
train.checkpointer.period = 1000
