"""DINO R50 as detrex's 12-epoch weights need it (49.2 AP): another positional embedding, heads
of their own for every decoder layer, res2 trained too, no weight decay on norms.

Images without boxes and the length of the schedule stay those of dino_r50.py: detrex leaves the
former out and trains for 90,000 iterations with the drop at 82,500.

detrex's weights of 24 epochs have temperature 20 and offset 0: model.temperature=20
model.offset=0.
"""

from .dino_r50 import dataloader, lr_multiplier, model, optimizer, train

model.temperature = 10000.0
model.offset = -0.5
model.shared_heads = False
model.backbone.freeze_at = 1
optimizer.params.weight_decay_norm = 0.0
train.output_dir = "output/dino_r50_detrex"
