"""How long Detectron2's own recipes train: 1x is 90,000 iterations of 16 images, 12 epochs of COCO.

Another batch is an override, dataloader.train.total_batch_size=64, and changes the recipe's
iterations, warm-up and rate with it, here linearly: see kddetr/engine/scaling.py.
"""


def set_iterations(train, dataloader, lr_multiplier, *, times: int) -> None:
    """Train `times` x, the rate x 0.1 when 30,000 iterations are left and again at the last 10,000;
    of a longer run at the last 60,000 and 20,000. Gradients are not clipped.
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
