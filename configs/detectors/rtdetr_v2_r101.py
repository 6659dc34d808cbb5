"""RT-DETRv2 R101, 72 epochs, as its authors train it (54.3 AP, 76 M parameters).

Their weights are hf://PekingU/rtdetr_v2_r101vd.
"""

from ..common.realtime import scales as _scales
from ..common.realtime import set_epochs as _set_epochs
from .rtdetr_v2_r18 import dataloader, lr_multiplier, model, optimizer, train

model.settings = {
    "backbone_config": {
        "model_type": "rt_detr_resnet",
        "depths": [3, 4, 23, 3],
        "out_indices": [2, 3, 4],
    },
    "encoder_hidden_dim": 384,
    "encoder_ffn_dim": 2048,
    "decoder_in_channels": [384, 384, 384],
}
model.train_sizes = _scales(3)

_set_epochs(train, dataloader, lr_multiplier, epochs=72, batch=16, warmup=2000)
optimizer.params.lr_factors = {"backbone": 0.01}

train.freeze = ["model.backbone.model.embedder"]  # the stem
train.output_dir = "output/rtdetr_v2_r101"
