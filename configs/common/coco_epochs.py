"""How long a recipe trains on COCO: the one place where images, epochs and batch become iterations.

Another batch is an override, dataloader.train.total_batch_size=64, and changes the recipe's
iterations and rates with it: see kddetr/engine/scaling.py.
"""

import math

IMAGES = 118_287  # of coco_2017_train, with those without boxes


def set_epochs(train, dataloader, lr_multiplier, *, epochs: int, drop: int, batch: int) -> None:
    """Train so many epochs of `batch` images an iteration, the rate x 0.1 after `drop` of them.

    Evaluates and saves after each. The drop is a fraction of the run, so it is exact whatever the
    batch or the number of iterations becomes.
    """
    iterations = math.ceil(IMAGES / batch)
    dataloader.train.total_batch_size = batch
    train.batch_scaling.reference = batch
    train.max_iter = epochs * iterations
    train.eval_period = train.checkpointer.period = iterations
    lr_multiplier.milestones = [drop / epochs]
