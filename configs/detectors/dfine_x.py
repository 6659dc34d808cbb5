"""D-FINE X, 80 epochs, as its authors train it (55.8 AP, 62 M parameters; 59.3 AP with weights that
were trained on Objects365 first).

Their weights are hf://ustc-community/dfine-xlarge-coco and dfine-xlarge-obj2coco, or the files of
their repository.
"""

from ..common.realtime import scales as _scales
from ..common.realtime import set_epochs as _set_epochs
from .dfine_s import dataloader, lr_multiplier, model, optimizer, train

model.settings = {
    "backbone_config": {
        "model_type": "hgnet_v2",
        "hidden_sizes": [256, 512, 1024, 2048],
        "stem_channels": [3, 32, 64],
        "stage_in_channels": [64, 128, 512, 1024],
        "stage_mid_channels": [64, 128, 256, 512],
        "stage_out_channels": [128, 512, 1024, 2048],
        "stage_num_blocks": [1, 2, 5, 2],
        "stage_numb_of_layers": [6, 6, 6, 6],
        "out_indices": [2, 3, 4],
    },
    "encoder_in_channels": [512, 1024, 2048],
    "encoder_hidden_dim": 384,
    "encoder_ffn_dim": 2048,
    "decoder_in_channels": [384, 384, 384],
    "decoder_n_points": [3, 6, 3],
    "reg_scale": 8.0,
}
model.train_sizes = _scales(3)

_set_epochs(train, dataloader, lr_multiplier, epochs=80, batch=32, warmup=500)
optimizer.lr = 2.5e-4
optimizer.weight_decay = 1.25e-4
optimizer.params.lr_factors = {"backbone": 0.01}
optimizer.params.weight_decay_bias = None

train.freeze = ["model.backbone.model.embedder"]  # the stem
train.output_dir = "output/dfine_x"
