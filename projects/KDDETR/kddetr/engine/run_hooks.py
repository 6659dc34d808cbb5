"""The hooks of a run, in the order in which they act. What every run shall do besides training is a
line here.

A hook that saves or writes files belongs to the main process alone; one that evaluates or
communicates belongs to all processes.
"""

import functools
from typing import TYPE_CHECKING, Any

from detectron2.engine import HookBase, hooks
from detectron2.utils import comm

from .average import AverageHook
from .card import ResultsInCard
from .early_stopping import EarlyStopHook
from .freezing import FreezeHook, frozen_norms
from .hooks import EvalHook, PeriodicCheckpointer, StopHook
from .loggers import LoggerHook
from .plain_folder import PlainFolder, can_be_saved
from .progress import ProgressHook, wants_display
from .watch import watch_hooks
from .weight_schedule import weight_hooks
from .writers import write_results

if TYPE_CHECKING:
    from .trainer import Trainer


def build_hooks(trainer: "Trainer") -> list[HookBase]:
    """Timer, learning rate, frozen parts, average, checkpoints, distillation weight, watching,
    stopping, evaluation, early stopping, writers, other loggers, display,
    in this order.

    The checkpoint of an iteration is saved before its evaluation, so that no training is lost when
    the evaluation fails. After the training all of them run, even where one fails.
    """
    train = trainer.cfg.train
    in_order: list[Any] = [hooks.IterationTimer(), hooks.LRScheduler()]
    if norms := frozen_norms(trainer.unwrapped, train.freeze):
        in_order.append(FreezeHook(norms))
    keep = train.checkpointer
    if trainer.average is not None:
        in_order.append(AverageHook(trainer.average, trainer.average_checkpointer, keep.period))
    if comm.is_main_process():
        in_order.append(
            PeriodicCheckpointer(trainer.checkpointer, keep.period, max_to_keep=keep.max_to_keep)
        )
    in_order += weight_hooks(trainer.unwrapped, train.max_iter)
    in_order += [*watch_hooks(trainer), StopHook()]
    if trainer.can_evaluate:
        write = functools.partial(write_results, train.output_dir)
        evaluation = (train.eval_period, trainer.evaluate, trainer.best)
        in_order.append(EvalHook(*evaluation, write=write, log_period=train.log_period))
        if comm.is_main_process():
            in_order.append(ResultsInCard())
        if train.early_stopping.patience:
            in_order.append(
                EarlyStopHook(trainer.best, period=train.eval_period, **train.early_stopping)
            )
    if comm.is_main_process() and can_be_saved(trainer.unwrapped):
        shipped = trainer.unwrapped if trainer.average is None else trainer.average.module
        in_order.append(PlainFolder(shipped, train.output_dir, train.classes or ()))
    if comm.is_main_process():
        in_order.append(hooks.PeriodicWriter(trainer.build_writers(), period=train.log_period))
        if train.loggers:
            in_order.append(LoggerHook(trainer.cfg, train.log_period))
        if wants_display(train.progress):
            in_order.append(ProgressHook(train.output_dir, trainer.best))
    return in_order
