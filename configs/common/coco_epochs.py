"""Converts epochs and batch size to iterations for COCO.

To use another batch size, override it: dataloader.train.total_batch_size=64. The iterations and the
learning rate of the config are then scaled to it, see kddetr/engine/config/scaling.py.
"""

import math

IMAGES = 118_287  # of coco_2017_train, including those without boxes


def set_epochs(train, dataloader, lr_multiplier, *, epochs: int, drop: int, batch: int) -> None:
    """Train for ``epochs`` with ``batch`` images an iteration; the rate is multiplied by 0.1 after
    ``drop`` epochs.

    The detector is evaluated and saved after every epoch. The drop is a fraction of the run, so it
    stays at the right epoch when the number of iterations changes.
    """
    iterations = math.ceil(IMAGES / batch)
    dataloader.train.total_batch_size = batch
    train.batch_scaling.reference = batch
    train.max_iter = epochs * iterations
    train.eval_period = train.checkpointer.period = iterations
    lr_multiplier.milestones = [drop / epochs]
