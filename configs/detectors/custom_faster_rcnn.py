r"""A Faster R-CNN of Detectron2's model zoo on COCO-format data of your own.

    python train_net.py --config-file configs/detectors/custom_faster_rcnn.py \
        model.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

Another detector of the zoo is set by model.name=COCO-Detection/retinanet_R_50_FPN_1x.yaml. To start
from the zoo's weights for COCO, set train.init_checkpoint=model_zoo://trained/NAME.
"""

from ..distill.custom_faster_rcnn import dataloader, lr_multiplier, optimizer, train
from ..distill.custom_faster_rcnn import model as _pair

model = _pair.student
train.init_checkpoint = "model_zoo://${model.name}"
train.output_dir = "output/custom_faster_rcnn_detector"
