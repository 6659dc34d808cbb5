"""The length of Detectron2's own recipes: 1x is 90,000 iterations of 16 images, 12 epochs of COCO.

To use another batch size, override it: dataloader.train.total_batch_size=64. The iterations, the
warm-up and the learning rate are then scaled to it, here linearly, see
kddetr/engine/config/scaling.py.
"""


def set_iterations(train, dataloader, lr_multiplier, *, times: int) -> None:
    """Train for ``times`` times 90,000 iterations; gradients are not clipped.

    The rate is multiplied by 0.1 when 30,000 iterations are left, and again when 10,000 are left;
    in a run longer than 1x, when 60,000 and 20,000 are left.
    """
    iterations = times * 90_000
    last = (30_000, 10_000) if times == 1 else (60_000, 20_000)
    dataloader.train.total_batch_size = 16
    train.batch_scaling.reference = 16
    train.batch_scaling.learning_rate = "linear"
    train.max_iter = iterations
    train.eval_period = train.checkpointer.period = 5000
    train.clip_grad.max_norm = None
    lr_multiplier.milestones = [(iterations - left) / iterations for left in last]
