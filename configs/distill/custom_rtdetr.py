r"""A real-time detector, distilled from a teacher of your own on COCO-format data of your own.

    python train_net.py --config-file configs/distill/custom_rtdetr.py \
        model.teacher.checkpoint=TEACHER.pth model.student.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

The student is an RT-DETRv2 R18 that starts from the weights trained on COCO,
hf://PekingU/rtdetr_v2_r18vd, which are fetched once; its heads are trained anew for other classes.
The teacher is a DINO R50 of your own. A real-time teacher of the Hub with the same classes:
model.teacher.checkpoint=hf://OWNER/NAME, with model.teacher.model of its config. Images without
labels can be added: dataloader.train.unlabeled.image_root=MORE
dataloader.train.unlabeled_per_batch=8.

The student is saved in train.output_dir as a folder of the package transformers too.
"""

from ..common.data.custom_realtime import dataloader
from .rtdetr_v2_r18_from_dino_r50 import lr_multiplier, model, optimizer, train

model.teacher.model.num_classes = "${model.student.num_classes}"

train.output_dir = "output/custom_rtdetr"
train.init_checkpoint = "hf://PekingU/rtdetr_v2_r18vd"
train.batch_scaling.reference = dataloader.train.total_batch_size
train.max_iter = 50000
train.eval_period = 5000
train.checkpointer.period = 1000
