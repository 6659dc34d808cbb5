"""Hooks that remember across a resume: the best model, old checkpoints, the last evaluation."""

import json
import logging
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase, hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from kddetr.checkpoint import Checkpointer, atomic_write

from ..errors import did_you_mean

__all__ = ["BestCheckpoint", "EvalHook", "PeriodicCheckpointer"]

_log = logging.getLogger(__name__)


class BestCheckpoint:
    """Keeps the weights with the highest metric as `model_best.pth`, and the record in `best.json`.

    Resuming never starts from that file: it holds weights only and is no `last_checkpoint`.

    Args:
        checkpointer: saves the weights; its folder gets both files.
        metric: name of the result to maximise, e.g. "bbox/AP".
    """

    def __init__(self, checkpointer: Checkpointer, metric: str):
        self._checkpointer = checkpointer
        self._metric = metric
        self._path = os.path.join(checkpointer.save_dir, "best.json")
        self.value: float | None = None
        self.iteration: int | None = None
        self.evaluated: int | None = None

    def restore(self) -> None:
        """Read the record of the run that is resumed, if it has one."""
        if not os.path.isfile(self._path):
            return
        with open(self._path) as stream:
            record = json.load(stream)
        self.evaluated = record["evaluated"]
        if record["metric"] == self._metric:
            self.value, self.iteration = record["value"], record["iteration"]
        else:
            _log.warning(
                "best.json counts %s, not %s: the best starts anew.", record["metric"], self._metric
            )

    def update(self, results: dict[str, float], iteration: int) -> None:
        """Save the weights if `results` are the best so far.

        Args:
            results: flat results of an evaluation.
            iteration: how many iterations were trained before it.
        """
        value = results.get(self._metric)
        if value is None:
            _log.error(
                "train.best_metric=%s is no result of the evaluation, so no best checkpoint is "
                "kept; %s",
                self._metric,
                did_you_mean(self._metric, results),
            )
        elif math.isfinite(value) and (self.value is None or value > self.value):
            self.value, self.iteration = float(value), iteration
            self._checkpointer.save_weights(
                "model_best", iteration=iteration - 1, metric={self._metric: self.value}
            )
            _log.info("best %s so far: %.3f after %d iterations", self._metric, value, iteration)
        self.evaluated = iteration
        record = {
            "metric": self._metric,
            "value": self.value,
            "iteration": self.iteration,
            "evaluated": self.evaluated,
        }
        # After the weights: a kill in between leaves the better file and repeats the evaluation.
        atomic_write(self._path, lambda stream: stream.write(json.dumps(record).encode()))

    def describe(self) -> str:
        """`best bbox/AP 41.2 (after 5000 iterations)`."""
        if self.value is None:
            return f"no best {self._metric} yet"
        return f"best {self._metric} {self.value:.3f} (after {self.iteration} iterations)"


class EvalHook(HookBase):
    """Evaluates every `period` iterations and after the last, in all processes.

    An evaluation that a kill cut off, with its iteration's checkpoint already saved, is made up for
    when the run is resumed.

    Args:
        period: iterations between evaluations; 0: only after the last.
        evaluate: returns nested results on the main process.
        best: keeps the best weights; given on the main process only.
    """

    def __init__(
        self, period: int, evaluate: Callable[[], Any], best: BestCheckpoint | None = None
    ):
        self._period = period
        self._evaluate = evaluate
        self._best = best

    def before_train(self) -> None:
        start = self.trainer.start_iter
        missed = (
            start > 0
            and self._due(start)
            and self._best is not None
            and self._best.evaluated != start
        )
        # The record is the main process's, and an evaluation needs everybody.
        if any(comm.all_gather(missed)):
            self._run(start)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._due(done):
            self._run(done)

    def after_train(self) -> None:
        # Only a run that came to its end has counted past the last iteration.
        if self.trainer.iter >= self.trainer.max_iter:
            self._run(self.trainer.max_iter)

    def _due(self, done: int) -> bool:
        return self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter

    def _run(self, done: int) -> None:
        results = self._evaluate()
        flat = {key: float(value) for key, value in flatten_results_dict(results or {}).items()}
        if flat:
            self.trainer.storage.put_scalars(**flat, smoothing_hint=False)
        if self._best is not None and flat:
            self._best.update(flat, done)
        # Waiting for the slowest process here keeps it out of the next iteration's time.
        comm.synchronize()


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's, which after a resume also counts and deletes the checkpoints made before."""

    def before_train(self) -> None:
        super().before_train()
        pattern = re.compile(rf"{re.escape(self.file_prefix)}_(\d{{7,}})\.pth")
        found = []
        for file in Path(self.checkpointer.save_dir).glob(f"{self.file_prefix}_*.pth"):
            match = pattern.fullmatch(file.name)
            if match and int(match[1]) < self.trainer.start_iter:
                found.append((int(match[1]), str(file)))
        self.recent_checkpoints = [file for _, file in sorted(found)]
