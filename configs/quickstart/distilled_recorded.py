r"""The student distilled from recorded answers of the bundled teacher, which does not run.

    python tools/record_teacher.py --config-file configs/quickstart/distilled.py \
        --output output/quickstart/record
    python train_net.py --config-file configs/quickstart/distilled_recorded.py
"""

from detectron2.config import LazyCall as L

from kddetr.points import SpecificSampler
from kddetr.teachers import RecordedTeacher

from .distilled_unlabeled import dataloader, lr_multiplier, model, optimizer, train

model.teacher = L(RecordedTeacher)(path="output/quickstart/record")
model.sampler = L(SpecificSampler)()
train.output_dir = "output/quickstart/distilled_recorded"
