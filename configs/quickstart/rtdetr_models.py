"""A small RT-DETRv2 for toy images, of 0.67 M parameters."""

from detectron2.config import LazyCall as L

from kddetr.detectors import huggingface_detector

# Strides 8 to 32: digits are 14 to 44 pixels high on images of 128.
student = L(huggingface_detector)(
    model_type="rt_detr_v2",
    num_classes=10,
    settings={
        "backbone_config": {
            "model_type": "rt_detr_resnet",
            "embedding_size": 16,
            "hidden_sizes": [16, 32, 64, 64],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_indices": [2, 3, 4],
        },
        "freeze_backbone_batch_norms": False,
        "encoder_in_channels": [32, 64, 64],
        "encoder_hidden_dim": 64,
        "encoder_ffn_dim": 128,
        "encoder_attention_heads": 4,
        "hidden_expansion": 0.5,
        "d_model": 64,
        "decoder_in_channels": [64, 64, 64],
        "decoder_ffn_dim": 128,
        "decoder_attention_heads": 4,
        "decoder_layers": 3,
        "num_queries": 50,
        "num_denoising": 20,
    },
    image_size=[128, 128],
    num_detections=100,
)
