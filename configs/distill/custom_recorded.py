r"""A small DINO, distilled from recorded answers of any detector on COCO-format data of your own.

The detections of a detector of any kind for the training images, in COCO's results format, are
recorded once; docs/recorded.md says how a teacher of this project is recorded.

    python tools/record_teacher.py --results RESULTS.json --annotations TRAIN.json \
        --images IMAGES --output output/record
    python train_net.py --config-file configs/distill/custom_recorded.py \
        model.teacher.path=output/record model.student.num_classes=K \
        dataloader.train.dataset.json_file=TRAIN.json dataloader.train.dataset.image_root=IMAGES \
        dataloader.test.dataset.json_file=VAL.json dataloader.test.dataset.image_root=IMAGES

The student is asked near the teacher's answers, because a file of results has no queries.
"""

from detectron2.config import LazyCall as L

from kddetr.points import AtAnswers, SpecificSampler
from kddetr.teachers import RecordedTeacher

from .custom_dino import dataloader, lr_multiplier, model, optimizer, train

model.teacher = L(RecordedTeacher)(path="")
model.sampler = L(SpecificSampler)()
model.query_placement = L(AtAnswers)()

train.output_dir = "output/custom_recorded"
