r"""A DINO R50 on COCO-format data of your own, for instance a teacher.

    python train_net.py --config-file configs/detectors/custom_dino.py model.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

To start from the DINO project's weights for COCO, name their file as train.init_checkpoint. A file
of detrex needs model.shared_heads=false, too, and if it was trained for 12 epochs
model.temperature=10000 model.offset=-0.5.
"""

from .custom import dataloader, lr_multiplier, train
from .dino_r50 import model, optimizer

train.output_dir = "output/custom_dino_detector"
