"""D-FINE S, 132 epochs, as its authors train it (48.5 AP, 10 M parameters).

Their weights are hf://ustc-community/dfine-small-coco, or the file of their repository.
"""

from detectron2.config import LazyCall as L

from kddetr.detectors import huggingface_detector

from ..common.data.coco_realtime import dataloader
from ..common.realtime import lr_multiplier, optimizer, train
from ..common.realtime import scales as _scales
from ..common.realtime import set_epochs as _set_epochs

model = L(huggingface_detector)(
    model_type="d_fine",
    num_classes=80,
    settings={
        "backbone_config": {
            "model_type": "hgnet_v2",
            "hidden_sizes": [128, 256, 512, 1024],
            "stem_channels": [3, 16, 16],
            "stage_in_channels": [16, 64, 256, 512],
            "stage_mid_channels": [16, 32, 64, 128],
            "stage_out_channels": [64, 256, 512, 1024],
            "stage_num_blocks": [1, 1, 2, 1],
            "stage_numb_of_layers": [3, 3, 3, 3],
            "use_learnable_affine_block": True,
            "out_indices": [2, 3, 4],
        },
        "freeze_backbone_batch_norms": False,
        "encoder_in_channels": [256, 512, 1024],
        "hidden_expansion": 0.5,
        "depth_mult": 0.34,
        "decoder_layers": 3,
        "decoder_n_points": [3, 6, 3],
    },
    train_sizes=_scales(20),
)

_set_epochs(train, dataloader, lr_multiplier, epochs=132, batch=32, warmup=500)
train.ema.warmup = 1000
optimizer.lr = 2e-4
optimizer.params.lr_factors = {"backbone": 0.5}
optimizer.params.weight_decay_bias = 0.0

train.output_dir = "output/dfine_s"
