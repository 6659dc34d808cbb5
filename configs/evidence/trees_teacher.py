"""The quickstart's teacher, trained on tree crowns in aerial photographs."""

from ..common.data.trees import dataloader
from ..quickstart.common import lr_multiplier, optimizer, train
from ..quickstart.models import teacher as model

model.num_classes = 1
optimizer.lr = 1e-3
train.output_dir = "output/evidence/trees_teacher"
