"""Further loggers of a run, such as W&B and MLflow, through the trackers of Hugging Face
accelerate: ``train.loggers`` of a config.

Each gets what ``metrics.json`` gets, and the config of the run. A resumed run continues its entry
there. Where a logger sends things is its own setting, by its environment variables.
"""

import contextlib
import json
import logging
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from detectron2.engine import HookBase
from omegaconf import DictConfig

from ..checkpoint import atomic_write
from ..errors import ConfigError, did_you_mean, one_line
from .config.differences import settings

PROJECT = "kddetr"
FILE = "loggers.json"  # the names of the run's entries
WINDOW = 20  # iterations whose median is logged, as in metrics.json
_log = logging.getLogger(__name__)
_NOT_IN_A_NAME = re.compile(r"[^\w\-. :/]")  # of a metric in MLflow


def check_loggers(names: Sequence[str]) -> None:
    """Check that the loggers of a config are known and installed.

    Raises:
        ConfigError: one of them is not.
    """
    if not names:
        return
    try:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
    except ImportError as error:
        raise ConfigError(
            f"train.loggers={list(names)} needs accelerate, which is not installed: pip install"
            " accelerate, or set train.loggers=[] (metrics.json and TensorBoard need nothing)."
        ) from error
    installed = {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            hint = did_you_mean(name, LOGGER_TYPE_TO_CLASS)
            raise ConfigError(f"train.loggers names {name}, which is no known logger; {hint}")
        if name not in installed:
            raise ConfigError(
                f"train.loggers names {name}, which is not installed: pip install"
                f" {name.replace('_', '-')}, or leave it out."
            )


class LoggerHook(HookBase):
    """Sends the metrics of a run to other loggers; it belongs to the main process.

    A logger that fails in the middle of a run costs its lines, and not the run.

    Args:
        cfg: of the run, whose settings each logger gets once.
        period: iterations between two sendings.
    """

    def __init__(self, cfg: DictConfig, period: int):
        self._cfg = cfg
        self._period = period
        self._file = os.path.join(cfg.train.output_dir, FILE)
        self._trackers: dict[str, Any] = {}
        self._sent = -1  # the last iteration

    def before_train(self) -> None:
        """Start or continue the entry of the run in each logger.

        Raises:
            ConfigError: a logger cannot start.
        """
        # An evaluation that was missed before has just been made up for, as of the step before.
        self._sent = self.trainer.start_iter - 2
        known = self._known() if self.trainer.start_iter > 0 else {}
        entries = {}
        for name in self._cfg.train.loggers:
            try:
                self._trackers[name] = tracker = self._started(name, known.get(name))
                if name not in known:
                    values = settings(self._cfg)
                    tracker.store_init_configuration({k: _plain(v) for k, v in values.items()})
            except Exception as error:  # of the logger's library
                reason = one_line(str(error) or type(error).__name__, 200)
                raise ConfigError(
                    f"train.loggers: {name} cannot start ({reason}): correct its settings, set"
                    f" WANDB_MODE=offline if it is wandb without a network, or leave {name} out."
                ) from error
            entries[name] = _entry(name, tracker)
        atomic_write(self._file, lambda stream: stream.write(json.dumps(entries).encode()))
        self._send()

    def after_step(self) -> None:
        done, evaluation = self.trainer.iter + 1, self._cfg.train.eval_period
        # After each evaluation too, because only the latest results are there to be sent.
        if done % self._period == 0 or (evaluation and done % evaluation == 0):
            self._send()

    def after_train(self) -> None:
        self._send()
        for name, tracker in self._trackers.items():
            with self._surviving(name):
                tracker.finish()

    def _started(self, name: str, entry: str | None) -> Any:
        from accelerate.state import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        PartialState(cpu=True)  # which trackers ask for; of a GPU it would choose one
        kind, folder = LOGGER_TYPE_TO_CLASS[name], self._cfg.train.output_dir
        title = os.path.basename(os.path.normpath(folder))
        options: dict[str, Any] = {}
        if name == "wandb":
            options = {"id": entry or secrets.token_hex(4), "resume": "allow", "dir": folder}
            options["name"] = title
        elif name == "mlflow":
            options = {"run_id": entry, "run_name": title}
        elif kind.requires_logging_directory:
            options = {"logging_dir": folder}
        project = os.environ.get("WANDB_PROJECT", PROJECT) if name == "wandb" else PROJECT
        tracker = kind(project, **options)
        tracker.start()
        return tracker

    def _send(self) -> None:
        """Send what is new, by the iteration that it belongs to."""
        lines: dict[int, dict[str, float]] = defaultdict(dict)
        latest = self.trainer.storage.latest_with_smoothing_hint(WINDOW)
        for name, (value, iteration) in latest.items():
            if iteration > self._sent:
                lines[iteration][_NOT_IN_A_NAME.sub("_", name)] = float(value)
        for iteration in sorted(lines):
            for name, tracker in self._trackers.items():
                with self._surviving(name):
                    tracker.log(lines[iteration], step=iteration)
        self._sent = max([self._sent, *lines])

    def _known(self) -> dict[str, str]:
        """The entries of the run that is resumed."""
        with contextlib.suppress(OSError, ValueError), open(self._file) as stream:
            found = json.load(stream)
            return {k: v for k, v in found.items() if isinstance(v, str)}
        return {}

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Any:
        try:
            yield
        except Exception as error:  # such as a network that is gone
            words = "%s failed (%s); it misses lines, which are in metrics.json (train.loggers)."
            _log.warning(words, name, one_line(str(error) or type(error).__name__, 200))


def _entry(name: str, tracker: Any) -> str | None:
    """What a resumed run continues; None: a new entry."""
    if name == "wandb":
        return tracker.init_kwargs["id"]
    return tracker.tracker.info.run_id if name == "mlflow" else None


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | None) else str(value)
