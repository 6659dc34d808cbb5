r"""Your own teacher, your own COCO-format folders, a small student.

    python train_net.py --config-file configs/distill/custom.py \
        model.teacher.checkpoint=TEACHER.pth model.student.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

Further images need no labels: dataloader.train.unlabeled.image_root=MORE
dataloader.train.unlabeled_per_batch=8. The class and box terms are means, so the config can be
moved to any batch size and number of processes.
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
optimizer.lr = 1e-4  # at 16 images, as detrex has it
train.max_iter = 50000
train.eval_period = 5000
train.checkpointer.period = 1000
