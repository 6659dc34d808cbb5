"""Hooks whose records survive a resume: best checkpoint, evaluation, periodic checkpoints."""

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

from ..checkpoint import Checkpointer, atomic_write, write_card
from ..errors import did_you_mean

_log = logging.getLogger(__name__)


class BestCheckpoint:
    """Keeps the weights with the highest metric in ``model_best.pth`` and a record in
    ``best.json``.

    ``model_best.pth`` has weights only, so a run is never resumed from it.

    Args:
        checkpointer: saves the weights; both files are in its folder.
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
        """Read the record of the run that is resumed, where there is one."""
        if not os.path.isfile(self._path):
            return
        with open(self._path) as stream:
            record = json.load(stream)
        self.evaluated = record["evaluated"]
        if record["metric"] == self._metric:
            self.value, self.iteration = record["value"], record["iteration"]
        else:
            _log.warning(
                "best.json is a record of %s, not of %s: the record starts anew.",
                record["metric"],
                self._metric,
            )

    def update(self, results: dict[str, float], iteration: int) -> None:
        """Save the weights if ``results`` are the best so far.

        Args:
            results: flat results of an evaluation.
            iteration: how many iterations were trained before it.
        """
        value = results.get(self._metric)
        if value is None:
            _log.error(
                "train.best_metric=%s is not a result of the evaluation, so no best checkpoint is"
                " kept; %s",
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
        # Written after the weights: when the process is killed in between, the evaluation is
        # repeated and the better weights are there.
        atomic_write(self._path, lambda stream: stream.write(json.dumps(record).encode()))

    def describe(self) -> str:
        """A phrase such as ``best bbox/AP 41.200 (after 5000 iterations)``."""
        if self.value is None:
            return f"no best {self._metric} yet"
        return f"best {self._metric} {self.value:.3f} (after {self.iteration} iterations)"


class EvalHook(HookBase):
    """Evaluates every ``period`` iterations and after the last one, in all processes.

    When a run was killed in an evaluation, after the checkpoint of that iteration was saved, the
    resumed run evaluates first. This needs ``train.best_metric``, whose record says which
    evaluation was the last; without it the evaluation is left out.

    Args:
        period: iterations between evaluations; 0: only after the last iteration.
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
        # Only the main process has the record, and all processes take part in an evaluation.
        if any(comm.all_gather(missed)):
            self._run(start)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._due(done):
            self._run(done)

    def after_train(self) -> None:
        # After an exception the iteration is still below the last one.
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
        # Wait for the slowest process here, so that the next iteration's time does not include it.
        comm.synchronize()


class PeriodicCheckpointer(hooks.PeriodicCheckpointer):
    """Detectron2's hook, which here also counts and deletes the checkpoints saved before a resume,
    each with the card beside it.
    """

    def step(self, iteration: int, **kwargs: Any) -> None:
        before = set(self.recent_checkpoints)
        super().step(iteration, **kwargs)
        for deleted in before - set(self.recent_checkpoints):
            write_card(deleted, ())

    def before_train(self) -> None:
        super().before_train()
        pattern = re.compile(rf"{re.escape(self.file_prefix)}_(\d{{7,}})\.pth")
        found = []
        for file in Path(self.checkpointer.save_dir).glob(f"{self.file_prefix}_*.pth"):
            match = pattern.fullmatch(file.name)
            if match and int(match[1]) < self.trainer.start_iter:
                found.append((int(match[1]), str(file)))
        self.recent_checkpoints = [file for _, file in sorted(found)]
