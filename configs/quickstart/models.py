"""A larger and a smaller DAB-Deformable-DETR, which learns faster on toy images than the other
detection transformers.
"""

from copy import deepcopy as _deepcopy

from detectron2.config import LazyCall as L

from kddetr.detectors import TinyConvNet, deformable_detr

teacher = L(deformable_detr)(
    backbone=L(TinyConvNet)(channels=[24, 48, 96], blocks=[0, 2, 2]),
    num_classes=10,
    in_features=["stage2"],
    extra_levels=0,
    num_queries=50,
    variant="anchors",
    anchor_size=0.23,
    embed_dim=96,
    num_heads=4,
    feedforward_dim=192,
    encoder_layers=2,
    decoder_layers=3,
    dropout=0.0,
    groups=16,
    num_detections=100,
)

student = _deepcopy(teacher)
student.backbone.channels = [16, 32, 64]
student.backbone.blocks = [0, 1, 1]
student.embed_dim = 64
student.feedforward_dim = 128
