"""Control: the student is asked at other random places than the teacher (share=1: KD-DETR)."""

from detectron2.config import LazyCall as L

from kddetr.baselines import OtherPlaces

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

model.query_placement = L(OtherPlaces)(share=0.0)
train.output_dir = "output/evidence/other_places"
