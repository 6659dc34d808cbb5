"""A cosine schedule with a short warm-up, for short runs."""

from detectron2.config import LazyCall as L

from kddetr.engine import cosine_schedule

lr_multiplier = L(cosine_schedule)(max_iter="${train.max_iter}", warmup_iters=0)
