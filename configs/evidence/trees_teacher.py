"""The quickstart's teacher, trained on tree crowns in aerial photographs.

It starts from the bundled teacher of digits, as a detector in practice starts from a published one:
574 crowns are few for a transformer that starts from nothing.
"""

from ..common.data.trees import dataloader
from ..quickstart.common import lr_multiplier, optimizer, train
from ..quickstart.models import teacher as model

model.num_classes = 1
optimizer.lr = 1e-3
train.init_checkpoint = "kddetr://quickstart_teacher.pth"
train.output_dir = "output/evidence/trees_teacher"
