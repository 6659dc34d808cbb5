"""RT-DETRv2 R18, 120 epochs, as its authors train it (48.1 AP, 20 M parameters).

Their weights are hf://PekingU/rtdetr_v2_r18vd, or the file of their repository. The backbone starts
from random weights here: name one of these, or another detector's file, in train.init_checkpoint.
"""

from detectron2.config import LazyCall as L

from kddetr.detectors import huggingface_detector

from ..common.data.coco_realtime import dataloader
from ..common.realtime import lr_multiplier, optimizer, train
from ..common.realtime import set_epochs as _set_epochs

model = L(huggingface_detector)(
    model_type="rt_detr_v2",
    num_classes=80,
    settings={
        "backbone_config": {
            "model_type": "rt_detr_resnet",
            "hidden_sizes": [64, 128, 256, 512],
            "depths": [2, 2, 2, 2],
            "layer_type": "basic",
            "out_indices": [2, 3, 4],
        },
        "freeze_backbone_batch_norms": False,
        "encoder_in_channels": [128, 256, 512],
        "hidden_expansion": 0.5,
        "decoder_layers": 3,
    },
)

_set_epochs(train, dataloader, lr_multiplier, epochs=120, batch=16, warmup=2000)
optimizer.params.lr_factors = {}

train.output_dir = "output/rtdetr_v2_r18"
