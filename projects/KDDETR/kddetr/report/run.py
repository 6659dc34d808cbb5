"""A run as its output folder tells it: config, metrics, evaluations and results."""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..engine.config.load import load_config
from ..engine.metrics import read_metrics
from ..errors import UsageError

MAIN_METRIC = "bbox/AP"
AVERAGED = "ema/"  # begins the names of the results of the averaged weights


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run.

    Attributes:
        iteration: how many iterations were done.
        seconds: of training steps until then; NaN where the run does not say it.
        value: the main metric, in percent for an AP; NaN for none.
    """

    iteration: int
    seconds: float
    value: float


@dataclass(frozen=True)
class Run:
    """A run in its output folder.

    Attributes:
        folder: the output folder.
        cfg: the config that the run has saved.
        lines: see :func:`~kddetr.engine.metrics.read_metrics`.
    """

    folder: Path
    cfg: DictConfig
    lines: list[dict]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def seed(self) -> int:
        """``train.seed``."""
        return self.cfg.train.seed

    @property
    def length(self) -> int:
        """How many iterations the run is to have, ``train.max_iter``."""
        return self.cfg.train.max_iter

    @property
    def done(self) -> int:
        """How many iterations it has; the last line of an evaluation is one beyond the last."""
        return min(self.lines[-1]["iteration"] + 1, self.length) if self.lines else 0

    @property
    def is_finished(self) -> bool:
        """Whether its final weights and its final evaluation are there, be it after all iterations
        or after those at which ``train.early_stopping`` has ended it.
        """
        evaluated = bool(self.evaluations) and self.evaluations[-1].iteration >= self.done
        whole = self.done >= self.length or bool(self.cfg.train.early_stopping.patience)
        return evaluated and whole and (self.folder / "model_final.pth").is_file()

    @property
    def is_distilled(self) -> bool:
        """Whether a teacher took part: at weight 0 the training is that of the student alone."""
        model = self.cfg.get("model") or {}
        return "student" in model and model.get("weight", 1.0) != 0

    @property
    def seconds(self) -> float:
        """Seconds of training steps; NaN where the run does not say it."""
        return next(
            (_number(x["train_seconds"]) for x in reversed(self.lines) if "train_seconds" in x),
            math.nan,
        )

    @functools.cached_property
    def metric(self) -> str | None:
        """The metric by which the run is judged: ``train.best_metric``, or else an AP of boxes;
        None for a run without an evaluation.
        """
        names = list(dict.fromkeys(key for line in self.lines for key in line))
        wanted = self.cfg.train.best_metric or MAIN_METRIC
        for one in (wanted, MAIN_METRIC, "AP"):
            if one in names:
                return one
            # Of several test sets, the names of the results begin with the name of the set.
            for name in names:
                if name.endswith(f"/{one}") and not name.startswith(AVERAGED):
                    return name
        return None

    @property
    def is_minimized(self) -> bool:
        """Whether a lower value of the metric is better, by ``train.best_mode``."""
        train = self.cfg.train
        wanted = train.best_metric and (self.metric or "").endswith(train.best_metric)
        return bool(wanted) and train.best_mode == "min"

    @functools.cached_property
    def evaluations(self) -> list[Evaluation]:
        """All evaluations so far."""
        found, seconds = [], math.nan
        for line in self.lines:
            seconds = _number(line.get("train_seconds", seconds))
            if self.metric and self.metric in line:
                done = min(line["iteration"] + 1, self.length)
                found.append(Evaluation(done, seconds, _number(line[self.metric])))
        return found

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the best main metric."""
        finite = [one for one in self.evaluations if math.isfinite(one.value)]
        choose = min if self.is_minimized else max
        return choose(finite, key=lambda one: one.value, default=None)

    @functools.cached_property
    def results(self) -> dict[str, float]:
        """The results of the last evaluation beside the main metric and including it, such as
        ``AP``, ``AP50`` and ``AP-cat``; empty without an evaluation.
        """
        return self._results("")

    @property
    def averaged(self) -> dict[str, float]:
        """The same results of the averaged weights; empty where there are none."""
        return {} if (self.metric or "").startswith(AVERAGED) else self._results(AVERAGED)

    def _results(self, start: str) -> dict[str, float]:
        if not self.metric:
            return {}
        last = next(line for line in reversed(self.lines) if self.metric in line)
        group = self.metric.rpartition("/")[0]
        start += f"{group}/" if group else ""
        return {
            name.removeprefix(start): _number(value)
            for name, value in last.items()
            if name.startswith(start)
        }

    @property
    def value(self) -> float:
        """The main metric of the last evaluation; NaN for none."""
        return self.evaluations[-1].value if self.evaluations else math.nan

    @property
    def value_name(self) -> str:
        """The short name of the main metric, such as ``AP``."""
        return (self.metric or MAIN_METRIC).rpartition("/")[2]

    def series(self, name: str) -> tuple[list[int], list[float]]:
        """The iterations at which a metric was logged, and its values; NaN and infinity are left
        out.
        """
        pairs = [(x["iteration"] + 1, _number(x[name])) for x in self.lines if name in x]
        finite = [(i, value) for i, value in pairs if math.isfinite(value)]
        return [i for i, _ in finite], [value for _, value in finite]

    def names(self, start: str) -> list[str]:
        """The names of the logged metrics that begin so, in the order of the log."""
        return list(dict.fromkeys(k for line in self.lines for k in line if k.startswith(start)))


def read_run(folder: str | Path) -> Run:
    """Read the output folder of a run.

    Raises:
        UsageError: there is no such folder, no run has written into it, or ``metrics.json`` has no
            line that can be read.
        ConfigError: its config cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}: name the output folder of a run.")
    file = folder / "config.yaml"
    if not file.is_file():
        raise UsageError(
            f"{folder} is not the output folder of a run, because it has no config.yaml: name the"
            " folder that train.output_dir named."
        )
    cfg = load_config(str(file))
    lines = read_metrics(folder)
    if not lines:
        raise UsageError(
            f"{folder / 'metrics.json'} is missing or has no line that can be read, so nothing is"
            " known of this run: train it, or copy that file as well."
        )
    return Run(folder, cfg, lines)


def plain(cfg: Any) -> Any:
    """A part of a config as plain containers, with its references resolved where they can be."""
    if not OmegaConf.is_config(cfg):
        return cfg
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException:  # a reference to what a saved config does not have
        return OmegaConf.to_container(cfg, resolve=False)


def _number(value: Any) -> float:
    """A value of ``metrics.json`` as a number; NaN for null, a truth value, a text."""
    return float(value) if type(value) in (int, float) else math.nan
