"""Detectron2's models, by name or built: wrapped without any change, or refused with a reason."""

import builtins

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from detectron2.structures import Keypoints
from detectron2.utils.events import EventStorage
from omegaconf import OmegaConf

from kddetr.detectors import (
    DenseQueryDetector,
    RegionDetector,
    detectron2_detector,
    model_zoo_detector,
    zoo_config,
)
from kddetr.errors import UsageError
from kddetr.structures import Detector
from tests import stock_models
from tests.tiny import CLASSES, tiny_batch
from tests.tiny_config import SMALL_ZOO

FASTER = "COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml"
MASK = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x"
HEADS = {"box_pooler", "box_head", "box_predictor"}


def heads(detector: RegionDetector) -> set[str]:
    return {name for name, _ in detector.stock.roi_heads.named_children()}


def shape_only(name: str, **options) -> torch.nn.Module:
    with torch.device("meta"):
        return model_zoo_detector(name, **options)


@pytest.mark.parametrize(
    "name",
    [
        FASTER,
        "COCO-Detection/faster_rcnn_R_50_C4_1x.yaml",
        "COCO-Detection/fast_rcnn_R_50_FPN_1x.yaml",
        "COCO-Detection/retinanet_R_50_FPN_1x.yaml",
        "COCO-Detection/retinanet_R_50_FPN_1x.py",
        "Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.py",
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.py",
        "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py",
    ],
)
def test_a_model_of_the_zoo_by_name(name):
    """The weights have the names and shapes that Detectron2 gives them, so its files fit."""
    detector = shape_only(name)
    assert isinstance(detector, Detector) and detector.takes_bgr
    assert isinstance(detector, DenseQueryDetector if "retina" in name else RegionDetector)
    cfg = model_zoo.get_config(name)
    with torch.device("meta"):
        if name.endswith(".py"):
            plain = instantiate(cfg.model)
        else:
            cfg.MODEL.DEVICE = "meta"
            plain = model_zoo.model_zoo.build_model(cfg)
    shapes, expected = (
        {key: value.shape for key, value in model.state_dict().items()}
        for model in (detector.stock, plain)
    )
    assert shapes == expected
    assert shape_only(name, num_classes=7).num_classes == 7


def test_fcos_takes_bgr_without_an_attribute_that_says_so():
    detector = shape_only("COCO-Detection/fcos_R_50_FPN_1x.py")
    assert isinstance(detector, DenseQueryDetector) and detector.takes_bgr
    # Its group norm, of which release 0.6 asks for one of a single channel on the way.
    norms = [m for m in detector.stock.head.modules() if isinstance(m, torch.nn.GroupNorm)]
    assert {(m.num_groups, m.num_channels) for m in norms} == {(32, 256)} and len(norms) == 8
    mean = zoo_config("COCO-Detection/fcos_R_50_FPN_1x.py").model.pixel_mean
    assert mean[0] < mean[2], "ImageNet's blue is darker than its red"


@pytest.mark.parametrize("name", [f"{MASK}.yaml", f"{MASK}.py"])
def test_mask_heads_stay_unless_boxes_only(name):
    assert heads(shape_only(name)) == HEADS | {"mask_pooler", "mask_head"}
    assert heads(shape_only(name, boxes_only=True)) == HEADS


def test_keypoint_heads_stay_unless_boxes_only():
    for name in ("keypoint_rcnn_R_50_FPN_1x.yaml", "keypoint_rcnn_R_50_FPN_1x.py"):
        assert heads(shape_only(f"COCO-Keypoints/{name}")) > HEADS
        assert heads(shape_only(f"COCO-Keypoints/{name}", boxes_only=True)) == HEADS


def test_overrides_of_either_kind_of_file():
    yaml = shape_only(FASTER, overrides=["MODEL.FPN.OUT_CHANNELS", 32, "MODEL.RPN.NMS_THRESH", 0.5])
    assert yaml.stock.backbone.fpn_lateral2.out_channels == 32
    assert yaml.stock.proposal_generator.nms_thresh == 0.5
    python = shape_only(
        "common/models/mask_rcnn_fpn.py",
        boxes_only=True,
        overrides=["model.roi_heads.box_head.fc_dims", [8, 1024], "model.backbone.norm", "BN"],
    )
    assert python.stock.roi_heads.box_head.fc1.out_features == 8
    assert isinstance(python.stock.backbone.fpn_lateral2.norm, torch.nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        (FASTER, ["MODEL.FPN.OUT_CHANNEL", 32], "MODEL.FPN.OUT_CHANNEL"),
        (FASTER, ["MODEL.FPN.OUT_CHANNELS", "many"], "OUT_CHANNELS"),
        (FASTER, ["MODEL.FPN.OUT_CHANNELS"], "KEY, VALUE"),
        (f"{MASK}.py", ["model.backbon.norm", "BN"], "model.backbon.norm"),
        (f"{MASK}.py", ["modle", 1], "no key modle"),
    ],
)
def test_wrong_overrides(name, overrides, words):
    with pytest.raises(UsageError, match=words):
        shape_only(name, overrides=overrides)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("faster_rcnn_R_50_FPN_1x", f"did you mean {FASTER}"),
        ("COCO-Detection/faster_rcnn_r50_FPN_1x.yml", "did you mean COCO-Detection/faster"),
        ("../../engine/defaults.py", "no config"),
        ("q", r"its \d+ names are like"),
        ("COCO-Detection/rpn_R_50_FPN_1x.yaml", "ProposalNetwork is not a detector, it predicts"),
        ("Misc/semantic_R_50_FPN_1x.yaml", "SemanticSegmentor is not a detector, it labels"),
        (
            "COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml",
            "PanopticFPN has a training",
        ),
        ("common/optim.py", "defines no model"),
        ("Misc/torchvision_imagenet_R_50.py", "has no num_classes"),
    ],
)
def test_names_of_other_models_are_refused_with_a_reason(name, words):
    with pytest.raises(UsageError, match=words):
        shape_only(name, num_classes=3)


def test_other_modules_are_refused():
    with pytest.raises(UsageError, match="A Linear cannot predict at given boxes"):
        detectron2_detector(torch.nn.Linear(2, 2))


def test_without_a_zoo_the_error_says_what_to_install(monkeypatch):
    whole = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "detectron2" and args[2] == ("model_zoo",):
            raise ModuleNotFoundError("No module named 'pkg_resources'")
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match="pip install 'setuptools<81'"):
        zoo_config(FASTER)


@pytest.mark.parametrize("kind", ["faster_rcnn", "cascade_rcnn", "c4", "retinanet", "fcos"])
def test_a_built_model_is_only_wrapped(kind):
    stock = getattr(stock_models, f"tiny_{kind}")()
    detector = detectron2_detector(stock, num_queries=5, input_format="BGR").eval()
    assert detector.stock is stock and detector.num_classes == CLASSES
    assert detector.num_queries == 5
    assert [id(p) for p in detector.parameters()] == [id(p) for p in stock.parameters()]
    kinds = {"retinanet": DenseQueryDetector, "fcos": DenseQueryDetector}
    assert isinstance(detector, kinds.get(kind, RegionDetector))
    with pytest.raises(UsageError, match="are made of boxes"):
        detector.random_queries(None, images=1, count=2)


def test_a_model_of_a_yaml_file_trains():
    torch.manual_seed(0)
    detector = model_zoo_detector(FASTER, num_classes=CLASSES, overrides=SMALL_ZOO)
    assert detector.training and detector.device.type == "cpu"
    bottom = detector.stock.backbone.bottom_up.named_parameters()
    assert {n.split(".")[0] for n, p in bottom if not p.requires_grad} == {"stem", "res2"}
    with EventStorage():
        losses = detector(tiny_batch())
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)


def test_a_config_of_calls_alone_is_written_and_read_again(tmp_path):
    """A config with built shapes in it could not be read by another release of Detectron2."""
    cfg = zoo_config("COCO-Detection/retinanet_R_50_FPN_1x.py")
    path = str(tmp_path / "config.yaml")
    LazyConfig.save(LazyConfig.apply_overrides(cfg, ["train=null", "dataloader=null"]), path)
    assert "python/" not in (tmp_path / "config.yaml").read_text()
    with torch.device("meta"):
        for model in (LazyConfig.load(path).model, OmegaConf.to_container(cfg.model, resolve=True)):
            assert instantiate(model).head.bbox_pred.out_channels == 4 * 9


def test_keypoint_heads_train_and_take_no_part_in_answers():
    torch.manual_seed(0)
    small = [
        "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS",
        [8, 8],
        "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS",
        2,
    ]
    detector = model_zoo_detector(
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
        num_classes=CLASSES,
        overrides=[*SMALL_ZOO, *small, "MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", 0],
    )
    batch = tiny_batch()
    for x in batch:
        centres = x["instances"].gt_boxes.get_centers()
        points = torch.cat([centres, torch.full((len(centres), 1), 2.0)], dim=1)
        x["instances"].gt_keypoints = Keypoints(points[:, None].repeat(1, 2, 1))
    with EventStorage():
        losses = detector(batch)
    assert losses["loss_keypoint"] > 0
    losses["loss_keypoint"].backward()
    weights = list(detector.stock.roi_heads.keypoint_head.parameters())
    assert all(p.grad is not None and p.grad.any() for p in weights)
    detector.zero_grad()
    memory = detector.encode(batch)
    detector.decode(memory, detector.queries(memory)).logits.sum().backward()
    assert not any(p.grad is not None and p.grad.any() for p in weights)
