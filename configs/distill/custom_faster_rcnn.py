r"""A Faster R-CNN of Detectron2's model zoo, distilled from a DINO of your own on COCO-format data
of your own.

    python train_net.py --config-file configs/distill/custom_faster_rcnn.py \
        model.teacher.detector.checkpoint=TEACHER.pth model.student.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

The teacher may have more classes than the data; those of the data are found by their names. For a
teacher with COCO's classes add model.teacher.detector.model.num_classes=80
model.teacher.classes=coco_2017_val. For another teacher replace coco_2017_val by the JSON file that
the teacher was trained with, and 80 by its number of classes. For the teacher's checkpoint see
custom_dino.py, and write model.teacher.detector.model where that file has model.teacher.model.

Another student is set by model.student.name=Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml, and values of
its file are changed by model.student.overrides=[MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE,256]. The
student starts from the ImageNet weights of its file; to start from the model zoo's weights for
COCO, set train.init_checkpoint=model_zoo://trained/NAME.
"""

from detectron2.config import LazyCall as L

from kddetr.detectors import model_zoo_detector
from kddetr.teachers import Vocabulary

from ..common.data.custom_rcnn import dataloader
from .faster_rcnn_r50_from_dino_r50 import lr_multiplier, model, optimizer, train

model.student = L(model_zoo_detector)(
    name="COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml",
    num_classes=80,
    boxes_only=True,
    overrides=[],
)
model.teacher = L(Vocabulary)(
    detector=model.teacher,
    classes="${dataloader.train.dataset.json_file}",
    wanted="${dataloader.train.dataset.json_file}",
)
model.teacher.detector.model.num_classes = "${model.student.num_classes}"

train.output_dir = "output/custom_faster_rcnn"
train.batch_scaling.reference = dataloader.train.total_batch_size
train.init_checkpoint = "model_zoo://${model.student.name}"
train.max_iter = 50000
train.checkpointer.period = 1000
