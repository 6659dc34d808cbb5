"""The quickstart's student alone, on tree crowns in aerial photographs."""

from ..common.data.trees import dataloader
from ..quickstart.common import lr_multiplier, optimizer, train
from ..quickstart.models import student as model

model.num_classes = 1
train.output_dir = "output/evidence/trees_alone"
