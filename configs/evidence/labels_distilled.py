"""The quickstart's distillation with a chosen number of labelled images; the others have none."""

from detectron2.config import LazyCall as L

from kddetr.quickstart import first_images, other_images

from ..quickstart.distilled import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset = L(first_images)(count=300)
dataloader.train.unlabeled = L(other_images)(after="${..dataset.count}")
train.output_dir = "output/evidence/labels_distilled"
