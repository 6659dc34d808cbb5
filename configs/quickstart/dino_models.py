"""A larger and a smaller DINO for toy images, and a DAB-DETR of the size of the smaller DINO."""

from copy import deepcopy as _deepcopy

from detectron2.config import LazyCall as L

from kddetr.detectors import dab_detr, dino

from .models import student as _smaller
from .models import teacher as _larger

teacher = L(dino)(
    backbone=_deepcopy(_larger.backbone),
    num_classes=10,
    in_features=["stage2"],
    extra_levels=1,
    num_queries=50,
    embed_dim=96,
    num_heads=4,
    feedforward_dim=192,
    encoder_layers=2,
    decoder_layers=3,
    groups=16,
    denoising_number=20,
    num_detections=100,
)

student = _deepcopy(teacher)
student.backbone = _deepcopy(_smaller.backbone)
student.embed_dim = 64
student.feedforward_dim = 128

dab_student = L(dab_detr)(
    backbone=_deepcopy(_smaller.backbone),
    num_classes=10,
    in_feature="stage2",
    num_queries=50,
    anchor_size=0.23,
    anchor_temperature=20.0,  # that of image positions, so that both embeddings are alike
    embed_dim=64,
    num_heads=4,
    feedforward_dim=128,
    encoder_layers=2,
    decoder_layers=3,
    num_detections=100,
)
