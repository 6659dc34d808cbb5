"""Detectron2's own detectors, built from the configs of its model zoo, with few random weights.

They are made for images of about 64 x 80 pixels and :data:`tests.tiny.CLASSES` classes. With
``FrozenBN``, the predictions for an image do not depend on its batch. All but FCOS, whose config
does not name the order of the channels, take BGR images.
"""

from typing import Any

import torch
from detectron2 import model_zoo
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.modeling.backbone.resnet import BasicBlock
from omegaconf import DictConfig, OmegaConf
from torch import nn

from tests.tiny import CLASSES

WIDTH = 16
LEVELS = ["p2", "p3", "p4"]
STRIDES = [4, 8, 16]
DENSE_LEVELS = ["p2", "p3", "p4", "p5"]
DENSE_STRIDES = [4, 8, 16, 32]


def tiny_faster_rcnn(*, mask: bool = False, seed: int = 0, **options: Any) -> nn.Module:
    """A Faster R-CNN, or a Mask R-CNN.

    Args:
        mask: keep the mask head.
        seed: of the weights.
        options: further values of its config by dotted name: ``{"roi_heads.num_classes": 4}``.
    """
    config = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    _pyramid_rcnn(config, mask=mask)
    heads = config.roi_heads
    heads.box_head.input_shape = L(ShapeSpec)(channels=WIDTH, height=3, width=3)
    heads.box_head.fc_dims = [24]
    heads.box_predictor.input_shape = L(ShapeSpec)(channels=24)
    return _built(config, options, seed)


def tiny_cascade_rcnn(*, mask: bool = False, seed: int = 0, **options: Any) -> nn.Module:
    """A Cascade R-CNN of three stages; arguments of :func:`tiny_faster_rcnn`."""
    config = model_zoo.get_config("common/models/cascade_rcnn.py").model
    _pyramid_rcnn(config, mask=mask)
    for head, predictor in zip(config.roi_heads.box_heads, config.roi_heads.box_predictors):
        head.input_shape = L(ShapeSpec)(channels=WIDTH, height=3, width=3)
        head.fc_dims = [24]
        predictor.input_shape = L(ShapeSpec)(channels=24)
    return _built(config, options, seed)


def tiny_c4(*, mask: bool = False, seed: int = 0, **options: Any) -> nn.Module:
    """A Faster R-CNN without a pyramid, its box head a stage of the ResNet.

    Arguments of :func:`tiny_faster_rcnn`.
    """
    config = model_zoo.get_config("common/models/mask_rcnn_c4.py").model
    config.backbone = _resnet(["res4"])
    _tiny_rpn(config.proposal_generator, ["res4"], channels=WIDTH, sizes=[[16, 32, 48]])
    config.proposal_generator.anchor_generator.strides = [16]
    config.proposal_generator.head.num_anchors = 9
    heads = config.roi_heads
    _tiny_heads(heads, mask=mask)
    heads.in_features = ["res4"]
    heads.pooler.output_size = 4
    heads.res5 = _stage(WIDTH, 24, 2)
    if mask:
        heads.mask_head.conv_dims = [8]
    return _built(config, options, seed)


def tiny_retinanet(*, seed: int = 0, **options: Any) -> nn.Module:
    """A RetinaNet of four levels, six anchors a cell; arguments of :func:`tiny_faster_rcnn`."""
    config = model_zoo.get_config("common/models/retinanet.py").model
    config.anchor_generator.sizes = [[x, x * 1.5] for x in (8, 16, 32, 64)]
    config.anchor_generator.strides = DENSE_STRIDES
    config.head.num_anchors = 6
    return _built(_dense(config), options, seed)


def tiny_fcos(*, seed: int = 0, **options: Any) -> nn.Module:
    """An FCOS of four levels; arguments of :func:`tiny_faster_rcnn`."""
    config = model_zoo.get_config("common/models/fcos.py").model
    config.head.norm = ""  # the config's GroupNorm needs a multiple of 32 channels
    return _built(_dense(config), {"test_score_thresh": 0.05, **options}, seed)


def _dense(config: DictConfig) -> DictConfig:
    backbone = config.backbone
    backbone.bottom_up = _resnet(["res2", "res3"])
    backbone.in_features = ["res2", "res3"]
    backbone.out_channels = WIDTH
    backbone.top_block.in_channels = WIDTH
    backbone.top_block.in_feature = "p3"
    config.head_in_features = DENSE_LEVELS
    config.head.input_shape = [L(ShapeSpec)(channels=WIDTH) for _ in DENSE_LEVELS]
    config.head.conv_dims = [WIDTH]
    config.num_classes = CLASSES
    config.max_detections_per_image = 20
    return config


def _pyramid_rcnn(config: DictConfig, *, mask: bool) -> None:
    """Shrink all parts of an R-CNN on a feature pyramid except its box head."""
    config.backbone.bottom_up = _resnet(["res2", "res3", "res4"])
    config.backbone.in_features = ["res2", "res3", "res4"]
    config.backbone.out_channels = WIDTH
    config.backbone.top_block = None
    _tiny_rpn(config.proposal_generator, LEVELS, channels=WIDTH, sizes=[[8], [16], [32]])
    config.proposal_generator.anchor_generator.strides = STRIDES
    heads = config.roi_heads
    _tiny_heads(heads, mask=mask)
    heads.box_in_features = LEVELS
    heads.box_pooler.output_size = 3
    heads.box_pooler.scales = [1 / s for s in STRIDES]
    if mask:
        heads.mask_in_features = LEVELS
        heads.mask_pooler.output_size = 4
        heads.mask_pooler.scales = [1 / s for s in STRIDES]
        heads.mask_head.input_shape = L(ShapeSpec)(channels=WIDTH, width=4, height=4)
        heads.mask_head.conv_dims = [8, 8]


def _tiny_rpn(config: DictConfig, levels: list[str], *, channels: int, sizes: list) -> None:
    config.in_features = levels
    config.head.in_channels = channels
    config.anchor_generator.sizes = sizes
    config.batch_size_per_image = 16
    config.pre_nms_topk = [40, 40]
    config.post_nms_topk = [30, 20]


def _tiny_heads(config: DictConfig, *, mask: bool) -> None:
    config.num_classes = CLASSES
    config.batch_size_per_image = 16
    for part in () if mask else [name for name in config if name.startswith("mask_")]:
        del config[part]


def bgr(batch: list[dict]) -> list[dict]:
    """The batch with the channels of its images in reverse order."""
    return [x | {"image": x["image"].flip(0)} for x in batch]


def _resnet(features: list[str]) -> DictConfig:
    return L(ResNet)(
        stem=L(BasicStem)(in_channels=3, out_channels=8, norm="FrozenBN"),
        stages=[_stage(8, 8, 1), _stage(8, 12, 2), _stage(12, WIDTH, 2)][
            : int(features[-1][-1]) - 1
        ],
        out_features=features,
    )


def _stage(inside: int, outside: int, stride: int) -> DictConfig:
    return L(ResNet.make_stage)(
        block_class=BasicBlock,
        num_blocks=1,
        stride_per_block=[stride],
        in_channels=inside,
        out_channels=outside,
        norm="FrozenBN",
    )


def _built(config: DictConfig, options: dict[str, Any], seed: int) -> nn.Module:
    """The model, with larger weights in its heads, whose initial weights give constant outputs."""
    config.pixel_std = [57.375, 57.12, 58.395]
    for key, value in options.items():
        OmegaConf.update(config, key, value)
    torch.manual_seed(seed)
    model = instantiate(config)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.weight.std() < 0.05:
            nn.init.normal_(module.weight, std=0.1)
    return model
