"""The weights with the best metric of a run, and the record of it."""

import json
import logging
import math
import os
from typing import Any

from ..checkpoint import Checkpointer, atomic_write, read_checkpoint
from ..errors import CheckpointError, StorageError, did_you_mean
from .card import results_of
from .evaluation.sets import AVERAGED
from .resuming import converted

_log = logging.getLogger(__name__)


class BestCheckpoint:
    """Keeps the weights with the best metric in ``model_best.pth`` and a record in
    ``best.json``.

    ``model_best.pth`` has weights only, so a run is never resumed from it.

    Args:
        checkpointer: saves the weights; both files are in its folder.
        metric: name of the result, e.g. "bbox/AP".
        batch: images of an iteration, which the record's iterations are counted in; None: unknown.
        mode: "max": the highest value is the best, or "min": the lowest.

    Attributes:
        metric: its name.
        value, iteration: of the best weights so far; None: there are none.
        evaluated: the iterations before the last evaluation; None: not known.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        metric: str,
        batch: int | None = None,
        *,
        mode: str = "max",
    ):
        self._checkpointer = checkpointer
        self.metric = metric
        self._batch = batch
        self._mode, self._sign = mode, {"max": 1, "min": -1}[mode]
        self._path = os.path.join(checkpointer.save_dir, "best.json")
        self._weights = os.path.join(checkpointer.save_dir, "model_best.pth")
        self.value: float | None = None
        self.iteration: int | None = None
        self.evaluated: int | None = None
        self._history: dict[int, float | None] = {}  # the metric by the iterations that were done

    def restore(self, batch: int | None = None, *, start: int | None = None) -> None:
        """Read the record of the run that is resumed, where there is one.

        A damaged record is replaced by what ``model_best.pth`` itself says, and without that file
        there are no best weights.

        Args:
            batch: of the resumed checkpoint, which a record without a batch is counted in.
            start: how many iterations are done; later evaluations are made again.
        """
        if not os.path.isfile(self._path):
            return
        try:
            with open(self._path) as stream:
                record = _checked(json.load(stream))
        except (OSError, ValueError, TypeError, KeyError) as error:
            record = self._record_of_weights()
            _log.warning("%s is damaged (%r): %s.", self._path, error, record["origin"])
        counted = record.get("batch") or batch
        if (evaluated := record["evaluated"]) is not None:
            self.evaluated = converted(evaluated, counted, self._batch)
        before = record["metric"], record.get("mode", "max")
        if before != (self.metric, self._mode):
            words = "best.json is a record of the %s %s, not of the %s %s: the record starts anew."
            _log.warning(words, *before[::-1], self._mode, self.metric)
            return
        self._history = {
            converted(done, counted, self._batch): value
            for done, value in record.get("history", ())
            if start is None or converted(done, counted, self._batch) <= start
        }
        if record["value"] is not None and not os.path.isfile(self._weights):
            _log.warning("%s is missing: the best weights are those of later ones.", self._weights)
        elif record["value"] is not None:
            self.value = record["value"]
            self.iteration = converted(record["iteration"], counted, self._batch)

    def _record_of_weights(self) -> dict[str, Any]:
        """The record that ``model_best.pth`` holds; without a value where that is damaged too."""
        record: dict[str, Any] = {"metric": self.metric, "mode": self._mode}
        record |= {"value": None, "evaluated": None}
        try:
            data = read_checkpoint(self._weights)
            value, iteration = float(data["metric"][self.metric]), int(data["iteration"]) + 1
        except (CheckpointError, KeyError, TypeError, ValueError):
            return record | {"origin": "the record starts anew"}
        record |= {"value": value, "iteration": iteration}
        return record | {"origin": f"model_best.pth has {self.metric} {value:.3f}"}

    def update(self, results: dict[str, float], iteration: int) -> None:
        """Save the weights if ``results`` are the best so far.

        Args:
            results: flat results of an evaluation.
            iteration: how many iterations were trained before it.
        """
        value = results.get(self.metric)
        if value is None:
            _log.error(
                "train.best_metric=%s is not a result of the evaluation, so no best checkpoint is"
                " kept; %s",
                self.metric,
                did_you_mean(self.metric, results),
            )
        elif math.isfinite(value) and (self.value is None or self.gain(value, self.value) > 0):
            self._save(float(value), iteration, results)
        self.evaluated = iteration
        known = value is not None and math.isfinite(value)
        self._history[iteration] = float(value) if known else None
        record = {
            "metric": self.metric,
            "mode": self._mode,
            "value": self.value,
            "iteration": self.iteration,
            "evaluated": self.evaluated,
            "batch": self._batch,
            "history": list(self._history.items()),
        }
        # Written after the weights: when the process is killed in between, the evaluation is
        # repeated and the better weights are there.
        try:
            atomic_write(self._path, lambda stream: stream.write(json.dumps(record).encode()))
        except StorageError as error:
            _log.warning("%s The run goes on.", error)

    def gain(self, value: float, before: float) -> float:
        """How much better a value of the metric is than an earlier one."""
        return self._sign * (value - before)

    def without_gain(self, min_delta: float = 0.0) -> int:
        """How many of the last evaluations did not improve on the best before them by more than
        ``min_delta``.
        """
        best, count = None, 0
        for value in self._history.values():
            if value is not None and (best is None or self.gain(value, best) > min_delta):
                best, count = value, 0
            else:
                count += 1
        return count

    def _save(self, value: float, iteration: int, results: dict[str, float]) -> None:
        """Save the weights; what cannot be saved is not the best so far."""
        own = results_of(results, averaged=self.metric.startswith(AVERAGED))
        more = {"metric": {self.metric: value}, "results": own}
        try:
            self._checkpointer.save_weights("model_best", iteration=iteration - 1, **more)
        except StorageError as error:
            _log.warning("%s The run goes on without the best weights of this evaluation.", error)
            return
        self.value, self.iteration = value, iteration
        _log.info("best %s so far: %.3f after %d iterations", self.metric, value, iteration)

    def describe(self) -> str:
        """A phrase such as ``best bbox/AP 41.200 (after 5000 iterations)``."""
        if self.value is None:
            return f"no best {self.metric} yet"
        return f"best {self.metric} {self.value:.3f} (after {self.iteration} iterations)"


def _checked(record: Any) -> dict[str, Any]:
    """A record as it was read.

    Raises:
        KeyError, TypeError, ValueError: an entry is missing or no number.
    """
    for key in ("value", "iteration", "evaluated"):
        if record[key] is not None and not math.isfinite(record[key]):
            raise ValueError(key)
    if record["value"] is not None and record["iteration"] is None:
        raise KeyError("iteration")
    for done, value in record.get("history", ()):
        if not math.isfinite(done) or not math.isfinite(value or 0):
            raise ValueError("history")
    return {**record, "metric": str(record["metric"])}
