r"""A Deformable DETR R50 with refinement on COCO-format data of your own, for instance a teacher.

    python train_net.py --config-file configs/detectors/custom.py model.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

It starts from ImageNet weights; to start from a published detector, name its file as
train.init_checkpoint. tools/train.py does the same for a folder in any usual layout, and chooses
the length for its number of images.
"""

from ..common.data.custom import dataloader
from .deformable_detr_refine_r50 import lr_multiplier, model, optimizer, train

train.output_dir = "output/custom_detector"
train.batch_scaling.reference = dataloader.train.total_batch_size
optimizer.lr = 1e-4  # for 16 images, as in detrex
train.max_iter = 50000
train.eval_period = 5000
train.checkpointer.period = 1000
