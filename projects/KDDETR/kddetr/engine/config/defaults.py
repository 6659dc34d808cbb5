"""The ``train`` section of a config: its keys with their types, defaults and ranges.

Periods and lengths count iterations. The comments are the text of docs/config_keys.md, which
tools/config_page.py writes: above a key, at the end of its line, or both.
"""

import copy
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, reduce
from operator import attrgetter, getitem
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError

from ...errors import ConfigError, did_you_mean
from .argument_types import fits, wrong_type
from .scaling import LEARNING_RATE_RULES

_log = logging.getLogger(__name__)


@dataclass
class BatchScaling:
    """How a config is scaled to another batch size, see kddetr/engine/config/scaling.py."""

    # The batch size that the config's lengths, periods and learning rate are for; 0: never scale.
    reference: int = 0
    # How the learning rate follows the batch: "sqrt", "linear" or "none".
    learning_rate: str = "sqrt"
    note: str = ""  # What was scaled; a run writes it here.


@dataclass
class MixedPrecision:
    """Automatic mixed precision."""

    # true, false, or "auto": on a card that computes this dtype itself, see
    # kddetr/engine/precision.py.
    enabled: bool | str = "auto"
    dtype: str = "bfloat16"  # "bfloat16", or "float16" on CUDA.


@dataclass
class Compilation:
    """Whether ``torch.compile`` is used, see kddetr/engine/compilation.py."""

    student: bool = False  # The detector that is trained, alone or in a distillation.
    teacher: bool = False  # The teacher of a distillation.


@dataclass
class GradientClipping:
    """Clipping of the norm of the whole model's gradient."""

    max_norm: float | None = 0.1  # The largest norm; null or 0: no clipping.
    norm_type: float = 2.0  # Order of the norm, above 0; inf: the largest absolute value.


@dataclass
class DistributedOptions:
    """Options of DistributedDataParallel."""

    # For a model with parameters that some batches give no gradient; costs time.
    find_unused_parameters: bool = False
    fp16_compression: bool = False  # Processes exchange gradients in float16.


@dataclass
class Checkpoints:
    """How often a checkpoint is saved, and how many are kept."""

    period: int = 5000  # Iterations from one checkpoint to the next.
    max_to_keep: int | None = 3  # The last ones that are kept; null: all.


@dataclass
class MovingAverage:
    """An exponential moving average of the detector's weights, see kddetr/engine/average.py."""

    # The share of the average that stays at each iteration, such as 0.9997; 0: no average. Where a
    # config is scaled to another batch, so is this.
    decay: float = 0.0
    # Iterations over which the decay rises: it is decay * (1 - exp(-t / warmup)) after t of them.
    # RT-DETR has 2000; 0: the decay is the same from the start.
    warmup: int = 0


@dataclass
class EarlyStop:
    """When a run ends before ``max_iter``, see kddetr/engine/early_stopping.py."""

    # So many evaluations without a better train.best_metric end the training; 0: never.
    patience: int = 0
    min_delta: float = 0.0  # how much better counts, in the units of the metric


@dataclass
class TrainSection:
    """How a detector, or a distillation, is trained."""

    output_dir: str = "output"  # The folder for everything that the run writes.
    # Weights to start from (a detector, or an ImageNet backbone), or to evaluate.
    init_checkpoint: str | None = ""
    # The detector's class names in order; null: those of the data. A run writes them here.
    classes: list[str] | None = None
    max_iter: int = 90000  # Length of the run, in iterations.
    # Seconds after which the run saves and stops, counted from the start of its processes; null: no
    # limit. Leave some for the last iteration and for saving.
    time_limit: float | None = None
    batch_scaling: BatchScaling = field(default_factory=BatchScaling)
    seed: int = 0  # Of the initial weights, the order of the images and everything random.
    device: str = "auto"  # "cuda", "cpu", or "auto": CUDA where there is a card.
    amp: MixedPrecision = field(default_factory=MixedPrecision)
    compile: Compilation = field(default_factory=Compilation)
    clip_grad: GradientClipping = field(default_factory=GradientClipping)
    # A batch goes through the model in so many parts, one after another, which needs less memory:
    # dataloader.train.total_batch_size stays the number of images of an iteration.
    accumulate: int = 1
    # Parts of the detector that are not trained: names of its weights or modules, where * stands
    # for any characters, such as [backbone, "encoder.layers.0.*"].
    freeze: list[str] = field(default_factory=list)
    ema: MovingAverage = field(default_factory=MovingAverage)
    ddp: DistributedOptions = field(default_factory=DistributedOptions)
    checkpointer: Checkpoints = field(default_factory=Checkpoints)
    eval_period: int = 5000  # Iterations between evaluations; 0: only after the last iteration.
    # 0: all batches of test images. A small number is for trying out a run: its AP means nothing,
    # because the objects in all other images count as missed.
    eval_batches: int = 0
    # The result whose best weights are kept as model_best.pth; "" or null: none are kept. Of
    # several test sets it is that of the first, or that of NAME/bbox/AP. ema/bbox/AP is that of
    # the averaged weights.
    best_metric: str | None = "bbox/AP"
    best_mode: str = "max"  # Or "min", for a metric that is better when it is lower.
    early_stopping: EarlyStop = field(default_factory=EarlyStop)
    log_period: int = 20  # Iterations between lines of the log and of metrics.json.
    # "rich": a display on the terminal in place of the lines about the progress, which are in
    # log.txt all the same. "plain": lines. "auto": the display where the output is a terminal.
    progress: str = "auto"
    # Further loggers beside metrics.json and TensorBoard, such as [wandb, mlflow], see
    # kddetr/engine/loggers.py.
    loggers: list[str] = field(default_factory=list)
    # Of a distillation: iterations between those whose gap to the teacher and gradient ratio are
    # logged, which costs about two backward passes, see kddetr/engine/watch.py; 0: never.
    watch_period: int = 100
    # Of a distillation: test images on which the gap is measured after every evaluation; 0: none.
    watch_images: int = 100
    # Whether the run ends with a page about it, report.html, which takes about 2 % of the training
    # time, or 20 seconds.
    report: bool = True
    report_images: int = 300  # Test images that the report asks the detectors about, at most.

    def __post_init__(self) -> None:
        if not self.output_dir.strip():
            raise ConfigError("train.output_dir is empty: name a folder for what the run saves.")
        for key in (
            *("max_iter", "log_period", "accumulate"),
            *("checkpointer.period", "checkpointer.max_to_keep"),
        ):
            self._require_at_least(1, key)
        for key in (
            *("seed", "eval_period", "eval_batches", "watch_period", "watch_images"),
            *("batch_scaling.reference", "clip_grad.max_norm", "ema.decay", "ema.warmup"),
            *("early_stopping.patience", "early_stopping.min_delta", "report_images"),
        ):
            self._require_at_least(0, key)
        if not self.ema.decay < 1:
            raise ConfigError(
                f"train.ema.decay must be below 1, not {self.ema.decay}: 0.9997 is usual, and 1"
                " would keep the first weights for ever."
            )
        if self.time_limit is not None and not self.time_limit > 0:
            raise ConfigError(f"train.time_limit must be above 0 seconds, not {self.time_limit}.")
        if not self.clip_grad.norm_type > 0:
            value = self.clip_grad.norm_type
            raise ConfigError(f"train.clip_grad.norm_type must be above 0, not {value}.")
        self._require_one_of(LEARNING_RATE_RULES, "batch_scaling.learning_rate")
        self._require_one_of(("bfloat16", "float16"), "amp.dtype")
        self._require_one_of(("max", "min"), "best_mode")
        self._require_one_of(("auto", "rich", "plain"), "progress")
        if (self.best_metric or "").startswith("ema/") and not self.ema.decay:
            raise ConfigError(
                f"train.best_metric={self.best_metric} is of the averaged weights, and there is no"
                " average: set train.ema.decay=0.9997, or another number below 1."
            )
        self._check_early_stopping()
        if self.amp.enabled not in (True, False, "auto"):
            value = self.amp.enabled
            raise ConfigError(f"train.amp.enabled must be true, false or auto, not '{value}'.")

    def _check_early_stopping(self) -> None:
        if not self.early_stopping.patience:
            return
        missing = "train.best_metric" if not self.best_metric else "train.eval_period"
        if not (self.best_metric and self.eval_period):
            raise ConfigError(
                f"train.early_stopping.patience={self.early_stopping.patience} needs {missing}: set"
                " both train.best_metric and train.eval_period, or set the patience to 0."
            )

    def _require_at_least(self, least: int, key: str) -> None:
        value = attrgetter(key)(self)
        if value is not None and not value >= least:  # not ``<``, which a NaN would pass
            raise ConfigError(f"train.{key} must be at least {least}, not {value}.")

    def _require_one_of(self, choices: Collection[str], key: str) -> None:
        value = attrgetter(key)(self)
        if value not in choices:
            raise ConfigError(f"train.{key} must be {' or '.join(choices)}, not '{value}'.")


@cache
def _structured() -> DictConfig:
    return OmegaConf.structured(TrainSection)


def train_defaults() -> dict[str, Any]:
    """The default ``train`` section as a new tree of plain dictionaries."""
    return OmegaConf.to_container(_structured())


@cache
def train_types() -> dict[str, Any]:
    """The type of every key of ``train`` that is no group, by its dotted name."""

    def types(group: type, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for inner in fields(group):
            key = f"{path}.{inner.name}"
            found |= types(inner.type, key) if is_dataclass(inner.type) else {key: inner.type}
        return found

    return types(TrainSection, "train")


def with_defaults(train: Any, source: str, *, lenient: bool = False) -> DictConfig:
    """Complete a ``train`` section with the defaults, and check its keys and types.

    The section comes in plain containers; ``source`` is its file, for messages. If ``lenient``,
    unknown keys are only warned about, because a saved config has those of ``+key=``.

    Raises:
        ConfigError: an unknown key, with the nearest known one, or a value of the wrong type.
    """
    for message in _typed(train)[1]:
        if not lenient:
            raise ConfigError(f"{source}: {message}")
        _log.warning("%s: %s", source, message)
    return OmegaConf.merge(train_defaults(), train)


def checked_values(train: DictConfig) -> DictConfig:
    """Check types and ranges of a complete ``train`` section, and convert values to their types.

    Keys that were added by ``+key=`` stay as they are.

    Raises:
        ConfigError: a value of the wrong type or out of range, such as ``train.max_iter=abc``.
    """
    is_group = OmegaConf.is_dict(train)
    resolved, _ = _typed(OmegaConf.to_container(train, resolve=True) if is_group else train)
    OmegaConf.to_object(resolved)  # makes the dataclass, which checks the ranges
    typed, _ = _typed(OmegaConf.to_container(train, resolve=False))
    return OmegaConf.merge(train, OmegaConf.to_container(typed, resolve=False))


def _typed(train: Any) -> tuple[DictConfig, list[str]]:
    """A section as a structured config, and sentences about its unknown keys, which are left
    out.
    """
    _check_groups(train, TrainSection, "train")
    tree, unknown = copy.deepcopy(train), []
    while True:
        try:
            return OmegaConf.merge(_structured(), tree), unknown
        except ConfigKeyError as error:
            *groups, key = error.full_key.split(".")
            del reduce(getitem, groups, tree)[key]
            hint = did_you_mean(key, [f.name for f in fields(error.object_type)])
            unknown.append(f"unknown key train.{error.full_key}; {hint}")


def _check_groups(value: Any, group: type, path: str) -> None:
    """Check the types of a group of keys; interpolations are checked when they are resolved."""
    if not isinstance(value, Mapping):
        given = "null" if value is None else repr(value)
        raise ConfigError(f"{path} is a group of keys and cannot be the single value {given}.")
    if odd := [key for key in value if not isinstance(key, str)]:
        raise ConfigError(f"{path} has the key {odd[0]!r}, which is no text.")
    for inner in fields(group):
        if inner.name not in value:
            continue
        key, given = f"{path}.{inner.name}", value[inner.name]
        if is_dataclass(inner.type):
            _check_groups(given, inner.type, key)
        elif not fits(given, inner.type) and "${" not in str(given):
            raise ConfigError(wrong_type(key, given, inner.type))
