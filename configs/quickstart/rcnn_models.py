"""A small Faster R-CNN for toy images, made of Detectron2's own parts."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import BasicStem, ResNet
from detectron2.utils.registry import locate

from kddetr.detectors import RegionDetector
from kddetr.detectors import zoo_config as _zoo

faster_rcnn = _zoo("common/models/mask_rcnn_fpn.py", boxes_only=True).model


def _stage(inside: int, outside: int, stride: int):
    return L(ResNet.make_stage)(
        block_class=L(locate)(name="detectron2.modeling.backbone.resnet.BasicBlock"),
        num_blocks=1,
        stride_per_block=[stride],
        in_channels=inside,
        out_channels=outside,
        norm="BN",
    )


# Strides 4, 8 and 16: digits are 14 to 44 pixels high on images of 128.
faster_rcnn.backbone.bottom_up = L(ResNet)(
    stem=L(BasicStem)(in_channels=3, out_channels=16, norm="BN"),
    stages=[_stage(16, 16, 1), _stage(16, 32, 2), _stage(32, 64, 2)],
    out_features=["res2", "res3", "res4"],
)
faster_rcnn.backbone.out_channels = 32
faster_rcnn.backbone.top_block = None

_levels = ["p2", "p3", "p4"]
_rpn = faster_rcnn.proposal_generator
_rpn.in_features = _levels
_rpn.head.in_channels = 32
_rpn.anchor_generator.sizes = [[16], [32], [64]]
_rpn.anchor_generator.strides = [4, 8, 16]
_rpn.batch_size_per_image = 64
_rpn.pre_nms_topk = [300, 300]
_rpn.post_nms_topk = [100, 100]

_heads = faster_rcnn.roi_heads
_heads.num_classes = 10
_heads.batch_size_per_image = 64
_heads.box_in_features = _levels
_heads.box_pooler.scales = [1 / 4, 1 / 8, 1 / 16]
_heads.box_head.input_shape = L(ShapeSpec)(channels=32, height=7, width=7)
_heads.box_head.fc_dims = [128, 128]
_heads.box_predictor.input_shape = L(ShapeSpec)(channels=128)
# It is not pretrained, and it trains better on normalised pixels.
faster_rcnn.pixel_std = [57.375, 57.12, 58.395]

student = L(RegionDetector)(stock=faster_rcnn, num_queries=50)
