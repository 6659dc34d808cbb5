"""Real-time detectors of the transformers package with a few thousand random weights."""

from typing import Any

import pytest
import torch
from torch import nn

from kddetr.detectors import HuggingFaceDetector, huggingface_detector
from tests.tiny import CLASSES

REASON = "needs the extra hf: pip install -e .[hf]"
MEMBERS = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")
SIZE = (64, 64)  # 84 tokens

_RESNET = {
    "model_type": "rt_detr_resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 12, 12],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_indices": [2, 3, 4],
}
_HGNET = {
    "model_type": "hgnet_v2",
    "hidden_sizes": [8, 8, 12, 12],
    "stem_channels": [3, 4, 8],
    "stage_in_channels": [8, 8, 8, 12],
    "stage_mid_channels": [4, 4, 4, 4],
    "stage_out_channels": [8, 8, 12, 12],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "out_indices": [2, 3, 4],
}
_COMMON = {
    "encoder_hidden_dim": 16,
    "encoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "d_model": 16,
    "num_queries": 6,
    "decoder_in_channels": [16, 16, 16],
    "decoder_ffn_dim": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "num_denoising": 5,
    "hidden_expansion": 0.5,
}
_PLAIN = {**_COMMON, "backbone_config": _RESNET, "encoder_in_channels": [8, 12, 12]}
_FINE = {**_COMMON, "backbone_config": _HGNET, "max_num_bins": 8, "lqe_hidden_dim": 8}
_FINE["depth_mult"] = 0.34
SETTINGS: dict[str, dict[str, Any]] = {
    "rt_detr": _PLAIN,
    "rt_detr_v2": _PLAIN,
    "d_fine": {**_FINE, "encoder_in_channels": [8, 12, 12]},
    "deimv2": {**_FINE, "encoder_in_channels": [16, 16, 16]},  # of what its projection gives
}


def tiny_huggingface(
    member: str = "rt_detr_v2", *, seed: int = 0, settings: dict | None = None, **options: Any
) -> HuggingFaceDetector:
    """A detector of the line whose every weight is random, heads and offsets too; the test is
    skipped where the package is not installed.
    """
    pytest.importorskip("transformers", reason=REASON)
    torch.manual_seed(seed)
    options = {"num_classes": CLASSES, "image_size": SIZE, "num_detections": 10, **options}
    settings = {**SETTINGS[member], **(settings or {})}
    detector = huggingface_detector(member, settings=settings, **options)
    for module in detector.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
        elif hasattr(module, "running_var"):
            nn.init.normal_(module.weight.data, 1.0, 0.2)
            nn.init.normal_(module.bias.data, 0.0, 0.2)
    return detector
