"""A distilled student of Detectron2's model zoo works in Detectron2's own predictor."""

import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.engine import DefaultPredictor as Detectron2Predictor
from omegaconf import OmegaConf

from kddetr.checkpoint import Checkpointer, read_checkpoint
from kddetr.data import DetectionMapper, ShortestEdge
from kddetr.detectors import model_zoo_detector
from kddetr.engine import Trainer, train_defaults
from kddetr.engine.card import run_card
from kddetr.prediction import DefaultPredictor
from tests.prediction.trained import NAMES
from tests.tiny_config import SMALL_ZOO

ZOO = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
SCORES = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0]


def test_the_file_and_the_card_beside_it(tmp_path):
    """The file is Detectron2's; with the card beside it, it is all that this project needs."""
    model = L(model_zoo_detector)(name=ZOO, num_classes=3, overrides=[*SMALL_ZOO, *SCORES])
    resize = L(ShortestEdge)(short_edge_length=64, max_size=96)
    test = {"mapper": L(DetectionMapper)(is_train=False, augmentations=[resize])}
    cfg = OmegaConf.create(
        {"model": model, "dataloader": {"test": test}, "train": train_defaults()},
        flags={"allow_objects": True},
    )
    torch.manual_seed(0)
    detector = Trainer.build_detector(cfg)
    Checkpointer(detector, str(tmp_path), card=run_card(cfg, detector, NAMES)).save_weights("model")
    file = str(tmp_path / "model.pth")
    assert read_checkpoint(file).keys() == {"model"} and (tmp_path / "model.json").is_file()

    theirs = model_zoo.get_config(ZOO)
    theirs.merge_from_list([*SMALL_ZOO, *SCORES, "MODEL.ROI_HEADS.NUM_CLASSES", 3])
    theirs.merge_from_list(["INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 96])
    theirs.merge_from_list(["MODEL.WEIGHTS", file, "MODEL.DEVICE", "cpu"])
    image = np.random.default_rng(0).integers(0, 256, (50, 80, 3), dtype=np.uint8)
    expected = Detectron2Predictor(theirs)(image)["instances"]
    ours = DefaultPredictor(file)
    found = ours(image)["instances"]
    assert len(found) > 0 and ours.metadata.thing_classes == NAMES
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert torch.equal(found.pred_classes, expected.pred_classes)
