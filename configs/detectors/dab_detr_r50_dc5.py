"""DAB-DETR R50-DC5, 50 epochs, as its authors train it (44.6 AP as detrex evaluates it): res5 is
dilated and has stride 16.

The authors' weights, and those that detrex converted, have the temperature 10 of the positional
embedding, not the 20 of the other models. There are four times as many tokens as with stride 32.
"""

from .dab_detr_r50 import dataloader, lr_multiplier, model, optimizer, train

model.backbone.dilation = True
model.temperature = 10.0
train.output_dir = "output/dab_detr_r50_dc5"
