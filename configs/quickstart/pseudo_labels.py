r"""The student trained on labels and on pseudo-labels of the bundled teacher, half of each batch.

    python tools/record_teacher.py --output output/quickstart/record \
        --pseudo-labels output/quickstart/pseudo_labels.json --threshold 0.5
    python train_net.py --config-file configs/quickstart/pseudo_labels.py

The record is that of distilled_recorded.py. Nothing else is known of its teacher.
"""

from detectron2.config import LazyCall as L

from kddetr.data import load_coco_format
from kddetr.quickstart import quickstart_root as _root

from .alone import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.unlabeled = L(load_coco_format)(
    json_file="output/quickstart/pseudo_labels.json", image_root=str(_root() / "train")
)
dataloader.train.unlabeled_mapper.labeled = True
dataloader.train.unlabeled_per_batch = 4
train.output_dir = "output/quickstart/pseudo_labels"
