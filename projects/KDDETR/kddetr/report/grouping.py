"""Groups of runs that differ only in their seed, named by what sets their config apart."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..engine.config.differences import UNSET, differences
from ..errors import UsageError, one_line
from .run import Run

# Settings of a config that do not change what is trained: folders, periods, the device.
_DECIDES_NOTHING = re.compile(
    r"train\.(output_dir|device|seed|time_limit|classes|best_metric|best_mode|report|report_images"
    r"|(log|eval|watch)_period|watch_images|progress|loggers|ddp\..*|checkpointer\..*"
    r"|batch_scaling\.note)(\..*)?"
    r"|dataloader\.(train\.seed|(train|test)\.num_workers|test\.batch_size|evaluator\.output_dir)"
)
# Runs that differ in these were asked different questions.
_DATA = re.compile(r"dataloader\.(test\.dataset|evaluator|train\.dataset)(\..*)?")
_DISTILLATION = "distillation"
_MOST_PARTS, _LONGEST_VALUE = 2, 30  # of the name of a group


@dataclass(frozen=True)
class Group:
    """Runs with the same settings and different seeds.

    Attributes:
        name: what sets it apart, such as ``distilled`` or ``distilled, weight=2``.
        runs: in the order of their seeds.
        settings: the values of what is not the same in all groups, by dotted key; those of the
            distillation begin with ``distillation``.
    """

    name: str
    runs: tuple[Run, ...]
    settings: Mapping[str, Any]

    @property
    def values(self) -> dict[int, float]:
        """The main metric of the last evaluation, by seed."""
        return {run.seed: run.value for run in self.runs}

    def unlike(self, other: "Group") -> int:
        """In how many settings besides those of a distillation two groups differ."""
        keys = [key for key in self.settings if not is_of_distillation(key)]
        return sum(self.settings[key] != other.settings[key] for key in keys)

    @property
    def is_distilled(self) -> bool:
        """Whether a teacher took part."""
        return self.runs[0].is_distilled


def comparable(cfg: DictConfig) -> DictConfig:
    """A config in which the student of a distillation stands where a detector alone stands, and
    what belongs to the distillation stands under a name of its own.

    So the settings of a student alone are those of the distilled student, without that part. At
    weight 0 nothing is distilled, so nothing of it is left.
    """
    cfg = copy.deepcopy(cfg)
    model = cfg.get("model")
    if model is None or "student" not in model:
        return cfg
    rest = {key: model._get_node(key) for key in model if key != "student"}
    weight = model.get("weight", 1.0)
    OmegaConf.update(cfg, "model", model.student, merge=False)
    if weight != 0:
        OmegaConf.update(cfg, _DISTILLATION, rest, merge=False, force_add=True)
    return cfg


def deciding_differences(one: DictConfig, other: DictConfig) -> dict[str, tuple]:
    """The settings of two configs of :func:`comparable` that can change a result, the seed left
    out; see :func:`~kddetr.engine.config.differences.differences`.
    """
    found = differences(one, other)
    count = "dataloader.train.unlabeled_per_batch"
    if not any(OmegaConf.select(cfg, count) for cfg in (one, other)):
        # It does not matter which images without labels are never read.
        found = {k: v for k, v in found.items() if not k.startswith("dataloader.train.unlabeled")}
    return {key: pair for key, pair in found.items() if not _DECIDES_NOTHING.fullmatch(key)}


def is_of_distillation(key: str) -> bool:
    """Whether a setting of :func:`comparable` belongs to the distillation, as images without labels
    do, because without a teacher they teach nothing.
    """
    return key.startswith((f"{_DISTILLATION}.", "dataloader.train.unlabeled"))


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """The groups, in the order of their first runs.

    Raises:
        UsageError: two runs have the same settings and the same seed, or the runs were trained or
            evaluated on different data, or are judged by different metrics.
    """
    configs = [comparable(run.cfg) for run in runs]
    _check_same_data(runs, configs)
    found = [deciding_differences(configs[0], cfg) for cfg in configs]
    first = {key: before for unlike in found for key, (before, _) in unlike.items()}
    members: dict[str, list[int]] = {}
    settings = [first | {key: value for key, (_, value) in unlike.items()} for unlike in found]
    for i, own in enumerate(settings):
        members.setdefault(repr(sorted(own.items(), key=str)), []).append(i)
    groups = []
    for some in members.values():
        in_order = sorted((runs[i] for i in some), key=lambda run: run.seed)
        groups.append(Group("", tuple(in_order), settings[some[0]]))
    for group in groups:
        for one, other in pairwise(group.runs):
            if one.seed == other.seed:
                raise UsageError(
                    f"{one.folder} and {other.folder} have the same settings and the same seed,"
                    f" {one.seed}: leave one of them out."
                )
    return [replace(g, name=name) for g, name in zip(groups, _names(groups), strict=True)]


def same_data(one: DictConfig, other: DictConfig) -> str:
    """Where two configs of :func:`comparable` have other labelled or test data: a phrase with the
    first key and both values; "" where they have the same.
    """
    for key, pair in differences(one, other).items():
        if _DATA.fullmatch(key) and not _DECIDES_NOTHING.fullmatch(key):
            first, second = (one_line(value, 100) for value in pair)
            return f"{key} is {first} in one and {second} in the other"
    return ""


def _check_same_data(runs: Sequence[Run], configs: Sequence[DictConfig]) -> None:
    for run, cfg in zip(runs[1:], configs[1:], strict=True):
        if unlike := same_data(configs[0], cfg):
            raise UsageError(
                f"{runs[0].folder} and {run.folder} have different data ({unlike}), so that their"
                " difference would not be one between two ways of training: compare runs on the"
                " same data."
            )
        if run.metric != runs[0].metric:
            raise UsageError(
                f"{runs[0].folder} is judged by {runs[0].metric or 'no metric'} and {run.folder} by"
                f" {run.metric or 'no metric'}: compare runs that were evaluated alike."
            )


def _names(groups: Sequence[Group]) -> list[str]:
    """Short names: alone or distilled, and a few settings that set a group apart from others."""
    kinds = {group.is_distilled for group in groups}
    names = []
    for group in groups:
        alike = [other for other in groups if other.is_distilled == group.is_distilled]
        parts: list[str] = []
        # The keys with the most values tell the most; other sections follow the section train.
        values = {key: {str(other.settings[key]) for other in alike} for key in group.settings}
        for key in sorted(values, key=lambda k: (-len(values[k]), not k.startswith("train."))):
            value = group.settings[key]
            if len(values[key]) > 1 and value != UNSET and len(parts) < _MOST_PARTS:
                parts.append(f"{_short_key(key)}={_short_value(value)}")
        if len(kinds) > 1:
            parts.insert(0, "distilled" if group.is_distilled else "alone")
        names.append(", ".join(parts) or group.runs[0].name)
    return [
        f"{name} ({group.runs[0].name})" if names.count(name) > 1 else name
        for name, group in zip(names, groups, strict=True)
    ]


def _short_key(key: str) -> str:
    """``weight`` for distillation.weight, ``lr`` for optimizer.lr."""
    parts = [part for part in key.split(".") if part != "_target_" and not part.isdigit()]
    return parts[-1]


def _short_value(value: object) -> str:
    """A value in a few letters; of the name of a class its last part."""
    text = one_line(value, 200)
    last = text.rpartition(".")[2]
    return last if last.isidentifier() else one_line(text, _LONGEST_VALUE)
