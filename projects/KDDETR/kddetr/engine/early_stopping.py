"""Early stopping: a training ends where ``train.best_metric`` no longer becomes better.

What counts are the evaluations of the run, which ``best.json`` lists. A resumed run therefore stops
where an uninterrupted one does, and one that has stopped does not go on, unless its patience is
raised.
"""

import logging

from detectron2.engine import HookBase
from detectron2.utils import comm

from .best import BestCheckpoint

_log = logging.getLogger(__name__)


class EnoughTrained(BaseException):
    """Leaves the loop of the iterations before its end. It is no Exception, because it is no
    error.
    """


class EarlyStopHook(HookBase):
    """Ends a training after ``patience`` evaluations in which the best metric did not become better
    by more than ``min_delta``. It comes after the hook that evaluates.

    Args:
        best: of the run; given on the main process only.
        period: iterations between evaluations.
        patience: at least 1.
        min_delta: in the units of the metric.
    """

    def __init__(
        self, best: BestCheckpoint | None, *, period: int, patience: int, min_delta: float
    ):
        self._best = best
        self._period = period
        self._patience = patience
        self._min_delta = min_delta

    def before_train(self) -> None:
        """A run that had ended before it was resumed ends here."""
        if self.trainer.start_iter > 0:
            self._end_where_enough(self.trainer.start_iter)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 and done < self.trainer.max_iter:
            self._end_where_enough(done)

    def _end_where_enough(self, done: int) -> None:
        best = self._best
        waited = best is not None and best.without_gain(self._min_delta) >= self._patience
        if not any(comm.all_gather(waited)):
            return
        if best is not None:
            count = best.without_gain(self._min_delta)
            _log.info(
                "Training ends after %d of %d iterations, because %d evaluation%s in a row did not"
                " improve on the best by more than %g (train.early_stopping): %s.",
                *(done, self.trainer.max_iter, count, "s" if count > 1 else ""),
                *(self._min_delta, best.describe()),
            )
        # The final checkpoint is saved as after the last iteration.
        self.trainer.max_iter = self.trainer.iter = done
        raise EnoughTrained
