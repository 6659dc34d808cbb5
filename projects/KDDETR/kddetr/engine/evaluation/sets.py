"""The test data of a config: whether there are any, and one config for each of several sets.

Several test sets are judged one by one, as in Detectron2: each has a loader and an evaluator of its
own, and the results have the names of the sets.
"""

import copy
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from detectron2.evaluation import COCOEvaluator, DatasetEvaluator
from omegaconf import DictConfig, OmegaConf

from ...data import dataset_names
from ...errors import ConfigError, did_you_mean
from ..config.calls import call_parameters, located
from ..config.load import build
from .coco import CocoEvaluator
from .truth_sources import check_for_detectron2

_DATASET = "dataloader.test.dataset"
_EVALUATED = "dataloader.evaluator.dataset_name"
AVERAGED = "ema/"  # at the start of the results of the averaged weights
_GAP = "gap/"  # in the results of a distillation, which are known after an evaluation only


def has_test_data(cfg: DictConfig) -> bool:
    """Whether a config has an evaluator and names test data.

    Paths that are left empty, as configs/common/data/custom.py has them, name none. One of two
    paths is a mistake, which is reported where the data set is registered.
    """
    loaders = cfg.get("dataloader") or {}
    test = loaders.get("test")
    if test is None or loaders.get("evaluator") is None:
        return False
    if not OmegaConf.is_dict(test) or "dataset" not in test:
        return True  # a loader of another kind, whose data are not known
    dataset = test.dataset
    if not OmegaConf.is_dict(dataset):
        return bool(dataset)
    given = [dataset[k] for k in ("names", "json_file", "image_root") if k in dataset]
    return any(given) or not given


def evaluation_sets(cfg: DictConfig) -> list[str]:
    """The registered names of the test data, in the order of the config.

    Raises:
        ConfigError: the evaluator has other data sets than the test loader, or several data sets
            are given in a form that cannot be taken apart.
        DatasetError: a path is empty, or a name already belongs to another data set.
    """
    tested = list(dict.fromkeys(names_in(_tested(cfg))))
    evaluated: list[str] = []
    for evaluator in _evaluators(cfg.dataloader.get("evaluator")):
        node = evaluator.get("dataset_name")
        if not (node is None or isinstance(node, str) or OmegaConf.is_config(node)):
            raise ConfigError(f"{_EVALUATED} must be the name of a data set, not {node!r}.")
        evaluated = list(dict.fromkeys(dataset_names(node))) or evaluated
        if tested and evaluated and set(evaluated) != set(tested):
            raise ConfigError(
                f"{_EVALUATED} is {', '.join(evaluated)}, but {_DATASET} reads"
                f" {', '.join(tested)}: name the same data sets in both."
            )
    names, items = tested or evaluated, _items(cfg)[1]
    if len(names) > 1 and not (items and all(len(dataset_names(item)) == 1 for item in items)):
        raise ConfigError(
            f"{_DATASET} reads several data sets ({', '.join(names)}) in a form in which they"
            " cannot be judged one by one: use get_detection_dataset_dicts(names=[...]), or name"
            " one data set."
        )
    return names


def by_evaluation_set(cfg: DictConfig) -> dict[str, DictConfig]:
    """The config of each test set, by the name of the set; of a single set, by "".

    The test loader of each reads that set alone. Its evaluator gets the name of the set as
    ``dataset_name``, where it has such an argument, and a folder of its own in ``output_dir``.

    Raises:
        ConfigError, DatasetError: see :func:`evaluation_sets`, or several sets have an evaluator
            that is not described in the config.
    """
    names, (key, items) = evaluation_sets(cfg), _items(cfg)
    node = cfg.dataloader.get("evaluator")
    if not items and not any(OmegaConf.is_list(e.get("dataset_name")) for e in _evaluators(node)):
        return {"": cfg}
    if len(names) > 1 and not (node is None or OmegaConf.is_dict(node)):
        raise ConfigError(
            "dataloader.evaluator must be a LazyCall, so that each test set can get its own."
        )
    parts = {}
    for item in items or [None]:
        part = copy.deepcopy(cfg)
        if item is not None:
            OmegaConf.update(part, key, copy.deepcopy(item), merge=False)
        name = (dataset_names(item) or names)[0]
        for evaluator in _evaluators(part.dataloader.get("evaluator")):
            _set_name(evaluator, name, alone=len(names) < 2)
        parts[name] = part
    return parts if len(parts) > 1 else {"": part}


def check_evaluation(cfg: DictConfig, *, best_metric: bool) -> None:
    """Check the evaluators, by building them, and ``train.best_metric`` against their results.

    The results of other evaluators than :class:`CocoEvaluator` are only known after an evaluation.

    Raises:
        ConfigError: an argument of an evaluator is wrong, or there will be no such result.
        DatasetError: an evaluator cannot read its data set.
    """
    known: list[str] = []
    for name, part in by_evaluation_set(cfg).items():
        evaluator = build(part.dataloader.evaluator)
        if not (hasattr(evaluator, "process") and hasattr(evaluator, "evaluate")):
            raise ConfigError(
                "dataloader.evaluator must build one DatasetEvaluator of Detectron2 (several go"
                f" into its DatasetEvaluators), not a {type(evaluator).__name__}."
            )
        for one in getattr(evaluator, "_evaluators", [evaluator]):  # of DatasetEvaluators
            if isinstance(one, COCOEvaluator) and not isinstance(one, CocoEvaluator):
                check_for_detectron2(one)
        if not isinstance(evaluator, CocoEvaluator):
            best_metric = False
            continue
        known += [f"{name}/{metric}" if name else metric for metric in evaluator.metric_names()]
    metric = best_metric_name(cfg).removeprefix(AVERAGED)
    if best_metric and metric and metric not in known and _GAP not in f"/{metric}":
        hint = did_you_mean(metric, known) if known else "the test data have no object to find."
        raise ConfigError(
            f"train.best_metric={cfg.train.best_metric} will have no value in the evaluation;"
            f" {hint} (train.best_metric=null keeps no best checkpoint.)"
        )


def best_metric_name(cfg: DictConfig) -> str:
    """The full name of ``train.best_metric``: of several test sets it begins with the name of one,
    which is the first if ``train.best_metric`` names none; "" without a best checkpoint.
    """
    metric, names = cfg.train.best_metric or "", evaluation_sets(cfg)
    prefix = AVERAGED if metric.startswith(AVERAGED) else ""
    metric = metric.removeprefix(prefix)
    if not metric or len(names) < 2 or any(metric.startswith(f"{name}/") for name in names):
        return prefix + metric
    return f"{prefix}{names[0]}/{metric}"


def names_in(node: Any) -> list[str]:
    """The registered names that a config node of data uses, at any depth."""
    if OmegaConf.is_dict(node):
        found = dataset_names(node)
        return found or [name for value in node.values() for name in names_in(value)]
    return [name for item in node for name in names_in(item)] if OmegaConf.is_list(node) else []


def _tested(cfg: DictConfig) -> Any:
    """The node of the test data; None where the loader is of a kind that is not known."""
    test = cfg.dataloader.get("test")
    return test.get("dataset") if OmegaConf.is_dict(test) else None


def _items(cfg: DictConfig) -> tuple[str, list]:
    """The key whose value is a list of test sets, and that list, empty where there is none."""
    dataset = _tested(cfg)
    names = dataset.get("names") if OmegaConf.is_dict(dataset) else None
    if OmegaConf.is_list(names):
        return f"{_DATASET}.names", list(names)
    return _DATASET, list(dataset) if OmegaConf.is_list(dataset) else []


def _evaluators(node: Any, *, inside: bool = False) -> Iterator[DictConfig]:
    """The LazyCall of an evaluator, and those of the evaluators in its arguments, such as those of
    Detectron2's DatasetEvaluators.
    """
    if OmegaConf.is_list(node):
        for item in node:
            yield from _evaluators(item, inside=inside)
    if OmegaConf.is_dict(node):
        target = node.get("_target_")
        kind = located(target) if target is not None and not OmegaConf.is_config(target) else None
        if not inside or (isinstance(kind, type) and issubclass(kind, DatasetEvaluator)):
            yield node
        for value in node.values():
            yield from _evaluators(value, inside=True)


def _set_name(evaluator: DictConfig, name: str, *, alone: bool) -> None:
    """Let an evaluator judge the data set ``name``, in place."""
    accepted = call_parameters(evaluator["_target_"]) if "_target_" in evaluator else None
    if "dataset_name" in evaluator or "dataset_name" in (accepted or ()):
        evaluator.dataset_name = name
    folder = evaluator.get("output_dir")
    if isinstance(folder, str) and folder and not alone:
        # Names are often paths, and two sets must not write the same files.
        evaluator.output_dir = os.path.join(folder, quote(name, safe=""))
