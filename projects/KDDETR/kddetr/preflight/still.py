"""Training steps that leave the weights as they are, to be measured again and again."""

from collections.abc import Iterator

import torch
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig
from torch import nn

from ..engine import Trainer
from ..engine.step import StepTrainer

Batch = list[dict]


class Given:
    """A data loader that hands over the batch that it was given last."""

    batch: Batch

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield self.batch


def still_trainer(
    cfg: DictConfig, model: nn.Module, given: Given, amp: torch.dtype | None
) -> StepTrainer:
    """What runs the steps of a training. Its learning rate is 0: the optimizer does all its work
    and leaves the weights as they are, so that every repetition measures the same step.

    Args:
        cfg: of the training.
        model: that is trained, on its device.
        given: gives the batches.
        amp: the dtype of mixed precision; None: float32.
    """
    optimizer = Trainer.build_optimizer(cfg, model)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    clip = cfg.train.clip_grad
    return StepTrainer(
        model=model,
        data_loader=given,
        optimizer=optimizer,
        seed=cfg.train.seed,
        amp_dtype=amp,
        max_norm=clip.max_norm,
        norm_type=clip.norm_type,
        accumulate=cfg.train.accumulate,
    )


def run_still(trainer: StepTrainer, given: Given, batch: Batch, number: int = 0) -> None:
    """One step on a batch; steps of one number draw equal random numbers, whatever the model."""
    given.batch = batch
    trainer.iter = number
    with EventStorage(number):  # the step and heads of Detectron2 log figures to it
        trainer.run_step()
