"""DINO R50 with 5 scales, stride 4 to 64, 12 epochs, as its authors train it (49.4 AP)."""

from .dino_r50 import dataloader, lr_multiplier, model, optimizer, train

model.in_features = ["res2", "res3", "res4", "res5"]
model.backbone.out_features = "${..in_features}"
train.output_dir = "output/dino_5scale_r50"
