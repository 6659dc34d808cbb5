r"""A smaller DINO, distilled from a DINO of your own on COCO-format data of your own.

    python train_net.py --config-file configs/distill/custom_dino.py \
        model.teacher.checkpoint=TEACHER.pth model.student.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

The file of the teacher may be one of the DINO project. A file of detrex also needs
model.teacher.model.shared_heads=false, and if it was trained for 12 epochs
model.teacher.model.temperature=10000 model.teacher.model.offset=-0.5.
"""

from ..common.kd_weighted_mean import loss as _loss
from .custom import dataloader, lr_multiplier, train
from .dino_r18_from_dino_r50 import model, optimizer

model.teacher.model.num_classes = "${model.student.num_classes}"
model.loss = _loss

train.output_dir = "output/custom_dino"
