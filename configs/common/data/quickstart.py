"""The bundled digits on photographs: 300 labelled images, 3,700 without labels, no augmentation."""

from detectron2.config import LazyCall as L
from detectron2.data import get_detection_dataset_dicts
from omegaconf import OmegaConf

from kddetr.data import DetectionMapper, build_test_loader, build_train_loader
from kddetr.engine import CocoEvaluator

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    dataset=L(get_detection_dataset_dicts)(names="quickstart_train_labeled", filter_empty=False),
    mapper=L(DetectionMapper)(is_train=True, augmentations=[], keep_images=True),
    total_batch_size=8,
    num_workers=0,  # the images are so small that loading processes would cost more than they save
    seed="${train.seed}",
    unlabeled=L(get_detection_dataset_dicts)(
        names="quickstart_train_unlabeled", filter_empty=False
    ),
    unlabeled_mapper=L(DetectionMapper)(is_train=True, labeled=False, augmentations=[]),
    unlabeled_per_batch=0,
)

dataloader.test = L(build_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="quickstart_val", filter_empty=False),
    mapper=L(DetectionMapper)(is_train=False, augmentations=[]),
    batch_size=8,
    num_workers=0,
)

dataloader.evaluator = L(CocoEvaluator)(dataset_name="${..test.dataset.names}")
