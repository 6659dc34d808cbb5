"""Hooks of a training: stopping on request, evaluation, periodic checkpoints."""

import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from ..checkpoint import write_card
from ..errors import StorageError
from . import stopping
from .best import BestCheckpoint

_log = logging.getLogger(__name__)


class EvalHook(HookBase):
    """Evaluates every ``period`` iterations and after the last one, in all processes.

    When a run was killed in an evaluation, after the checkpoint of that iteration was saved, the
    resumed run evaluates first. This needs ``train.best_metric``, whose record says which
    evaluation was the last; without it the evaluation is left out.

    Args:
        period: iterations between evaluations; 0: only after the last iteration.
        evaluate: returns nested results on the main process.
        best: keeps the best weights; given on the main process only.
        write: is given the results of an evaluation after which the writers do not write at once,
            because they know the latest results only, and the next evaluation may come first.
        log_period: iterations after which the writers write.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[], Any],
        best: BestCheckpoint | None = None,
        *,
        write: Callable[[Mapping[str, float], int], None] | None = None,
        log_period: int = 1,
    ):
        self._period = period
        self._evaluate = evaluate
        self._best = best
        self._write, self._log_period = write, log_period
        self._last: int | None = None  # iterations before the last evaluation

    def before_train(self) -> None:
        start = self.trainer.start_iter
        missed = (
            start > 0
            and self._due(start)
            and self._best is not None
            and self._best.evaluated != start
        )
        # Only the main process has the record, and all processes take part in an evaluation.
        if any(comm.all_gather(missed)):
            self.trainer.storage.iter = start - 1  # as if the run had not been interrupted
            self._run(start, is_written=False)
            self.trainer.storage.iter = start

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._due(done):
            self._run(done, is_written=done % self._log_period == 0)

    def after_train(self) -> None:
        # After an exception the iteration is still below the last one.
        if self.trainer.iter < self.trainer.max_iter:
            return
        done = max(self.trainer.start_iter, self.trainer.max_iter)
        if done == self._last:  # early stopping follows an evaluation
            return
        is_known = self._best is not None and self._best.evaluated == done
        # A run that was finished and is resumed has nothing to evaluate either.
        if done > self.trainer.start_iter or not any(comm.all_gather(is_known)):
            self._run(done)

    def _due(self, done: int) -> bool:
        return self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter

    def _run(self, done: int, *, is_written: bool = True) -> None:
        with stopping.at_once():  # the resumed run evaluates then
            results = self._evaluate()
            flat = {k: float(value) for k, value in flatten_results_dict(results or {}).items()}
            if flat:
                self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
            if flat and self._write is not None and not is_written:
                self._write(flat, done - 1)
            if self._best is not None and flat:
                self._best.update(flat, done)
            self._last = done
            # Wait for the slowest process here, so that the next iteration's time does not
            # include it.
            comm.synchronize()


class StopHook(HookBase):
    """Ends the training after an iteration in which one of the processes was asked to stop."""

    def after_step(self) -> None:
        """Raise :class:`~.stopping.Stopped` in all processes at the same iteration."""
        asked = max(comm.all_gather(stopping.requested()))
        if asked:
            raise stopping.Stopped(asked, between_steps=True, agreed=True)


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's hook, which here also counts and deletes the checkpoints saved before a
    resume, each with the card beside it, and outlives a full disk.

    Attributes:
        resumed_at: number of the iteration in the name of the checkpoint that was resumed from, in
            the batch of that time; None: the trainer's own.
    """

    resumed_at: int | None = None

    def step(self, iteration: int, **kwargs: Any) -> None:
        before = set(self.recent_checkpoints)
        super().step(iteration, **kwargs)
        for deleted in before - set(self.recent_checkpoints):
            write_card(deleted, ())

    def before_train(self) -> None:
        super().before_train()
        before = self.trainer.start_iter if self.resumed_at is None else self.resumed_at + 1
        pattern = re.compile(rf"{re.escape(self.file_prefix)}_(\d{{7,}})\.pth")
        found = []
        for file in Path(self.checkpointer.save_dir).glob(f"{self.file_prefix}_*.pth"):
            match = pattern.fullmatch(file.name)
            if match and int(match[1]) < before:
                found.append((int(match[1]), str(file)))
        self.recent_checkpoints = [file for _, file in sorted(found)]

    def after_step(self) -> None:
        # With another batch than before, an iteration can have the number of an earlier one.
        ending = f"{self.file_prefix}_{self.trainer.iter:07d}.pth"
        self.recent_checkpoints = [f for f in self.recent_checkpoints if not f.endswith(ending)]
        try:
            super().after_step()
        except StorageError as error:
            done = self.trainer.iter + 1
            _log.warning("%s The run goes on without a checkpoint at %d iterations.", error, done)

    def after_train(self) -> None:
        """Save the final checkpoint where it could not be saved after the last iteration.

        Raises:
            StorageError: it still cannot be saved.
        """
        last = f"{self.file_prefix}_final"
        if self.trainer.iter < self.trainer.max_iter:
            return
        if self.trainer.done > self.trainer.start_iter:
            is_saved = self.checkpointer.saved == (last, self.trainer.done - 1)
        else:  # nothing was left to train
            file = self.checkpointer.get_checkpoint_file()
            is_saved = os.path.basename(file) == f"{last}.pth" and os.path.isfile(file)
        if not is_saved:
            self.checkpointer.save(last, iteration=self.trainer.done - 1)
