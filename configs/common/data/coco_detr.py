"""COCO 2017 with DETR's published augmentation, read from $DETECTRON2_DATASETS/coco."""

from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from omegaconf import OmegaConf

from kddetr.data import DetectionMapper, ShortestEdge, build_train_loader, load_image_folder
from kddetr.engine import CocoEvaluator

resize = L(ShortestEdge)(short_edge_length=list(range(480, 801, 32)), max_size=1333)

dataloader = OmegaConf.create()

dataloader.train = L(build_train_loader)(
    # Images without boxes are kept, as in the published recipes; Detectron2 drops them by default.
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_train", filter_empty=False),
    mapper=L(DetectionMapper)(
        is_train=True,
        augmentations=[L(T.RandomFlip)(), resize],
        augmentations_with_crop=[
            L(T.RandomFlip)(),
            L(ShortestEdge)(short_edge_length=[400, 500, 600]),
            L(T.RandomCrop)(crop_type="absolute_range", crop_size=(384, 600)),
            resize,
        ],
    ),
    total_batch_size=16,
    num_workers=4,
    seed="${train.seed}",
    # Images without labels, for distillation: set their folder and their number in a batch.
    unlabeled=L(load_image_folder)(image_root=""),
    unlabeled_mapper=L(DetectionMapper)(
        is_train=True,
        labeled=False,
        augmentations="${..mapper.augmentations}",
        augmentations_with_crop="${..mapper.augmentations_with_crop}",
    ),
    unlabeled_per_batch=0,
)

dataloader.test = L(build_detection_test_loader)(
    dataset=L(get_detection_dataset_dicts)(names="coco_2017_val", filter_empty=False),
    mapper=L(DetectionMapper)(
        is_train=False, augmentations=[L(ShortestEdge)(short_edge_length=800, max_size=1333)]
    ),
    num_workers=4,
)

dataloader.evaluator = L(CocoEvaluator)(dataset_name="${..test.dataset.names}")
