"""docs/config_keys.md: every key of a config, made from the dataclasses and docstrings."""

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from kddetr import KDDETR, data, detectors, engine, losses, points, teachers
from kddetr.checkpoint import load_pretrained
from kddetr.detectors.detr.settings import DeformableSettings, TransformerSettings

from .docstrings import Argument, arguments, on_one_line, summary
from .train_keys import groups

INTRODUCTION = """\
# Every config key

A config is a Python file of Detectron2's [LazyConfig](your_own.md#more-about-configs) kind. It has
the sections `model`, `dataloader`, `optimizer`, `lr_multiplier` and `train`. Any value can be
overridden on the command line as `key=value`, see [training](training.md#train-resume-evaluate). A
key that does not exist, a value of the wrong type and a number out of range are errors that say
what is known.

The defaults here are those of the source. A config file may set others, and the `config.yaml` of a
run has all of its values. This page is written by a program and not edited by hand:

```bash
python tools/config_page.py
```

## The run

The section `train`. Periods and lengths count iterations.
"""


@dataclass(frozen=True)
class Section:
    """One second-level heading of the page.

    Attributes:
        title: the heading.
        text: what comes before the first table.
        parts: the classes and functions whose arguments are the keys, each with the key under which
            every config has it, or "" where the config chooses among several.
    """

    title: str
    text: str
    parts: dict[Callable, str] = field(default_factory=dict)


def _classes(package: Any, *left_out: str) -> dict[Callable, str]:
    """The public classes of a package that a config may name, in alphabetical order."""
    named = (getattr(package, name) for name in sorted(package.__all__) if name not in left_out)
    return {thing: "" for thing in named if inspect.isclass(thing)}


SECTIONS = (
    Section(
        "The data",
        "Images, their augmentation, and the metric. The COCO recipes name Detectron2's"
        " `get_detection_dataset_dicts` instead of `load_coco_format`, and have Detectron2's"
        " `build_detection_test_loader`.",
        {
            data.build_train_loader: "dataloader.train",
            data.load_coco_format: "dataloader.train.dataset",
            data.load_image_folder: "dataloader.train.unlabeled",
            data.DetectionMapper: "dataloader.train.mapper",
            data.ShortestEdge: "",
            data.PhotometricDistort: "",
            data.ZoomOut: "",
            data.IoUCrop: "",
            data.build_test_loader: "dataloader.test",
            data.register_coco_format: "",
            engine.CocoEvaluator: "dataloader.evaluator",
        },
    ),
    Section(
        "The distillation",
        "The section `model` of a pair. What a sampler, a query placement and a loss are is in"
        " [your own idea in ten lines](your_own.md).",
        {KDDETR: "model"},
    ),
    Section(
        "Teachers",
        "`model.teacher` is a detector with its weights, and may be wrapped.",
        {load_pretrained: "model.teacher", **_classes(teachers)},
    ),
    Section(
        "Samplers and query placements",
        "One of them is `model.sampler`; `AtAnswers` is a `model.query_placement`.",
        _classes(points),
    ),
    Section(
        "Distillation losses",
        "`model.loss`, its terms `model.loss.class_loss`, `model.loss.box_losses.0` and so on, and"
        " its weighting `model.loss.weighting`.",
        _classes(losses, "DistillationLoss", "PointTerm"),
    ),
    Section(
        "Detectors",
        "The section `model` of a detector alone, and `model.student` and `model.teacher.model` of"
        " a pair. All transformers share the settings of the first table, and those with deformable"
        " attention also the ones of the second. Which of them a published file needs is in"
        " [checkpoints](checkpoints.md#what-is-compared).",
        dict.fromkeys(
            (
                TransformerSettings,
                DeformableSettings,
                detectors.dab_detr,
                detectors.deformable_detr,
                detectors.dino,
                detectors.SetCriterion,
                detectors.HungarianMatcher,
                detectors.detectron2_detector,
                detectors.model_zoo_detector,
                detectors.RegionDetector,
                detectors.DenseQueryDetector,
                detectors.huggingface_detector,
            ),
            "",
        ),
    ),
    Section(
        "Backbones",
        "`model.backbone` of a detector alone.",
        dict.fromkeys(
            (
                detectors.resnet,
                detectors.swin,
                detectors.timm_backbone,
                detectors.TinyConvNet,
            ),
            "",
        ),
    ),
    Section(
        "Optimizer and schedule",
        "`optimizer` is any optimizer of PyTorch, with its arguments; `optimizer.params` sorts the"
        " parameters into groups. `lr_multiplier` is a schedule.",
        {
            engine.parameter_groups: "optimizer.params",
            engine.step_schedule: "lr_multiplier",
            engine.cosine_schedule: "",
        },
    ),
)


def page() -> str:
    """The whole page as Markdown."""
    lines = [INTRODUCTION]
    for group in groups():
        lines += [f"### {group.prefix}\n", f"{group.meaning}\n", *_table(group.keys)]
    links = {t.__name__: f"#{t.__name__.lower()}" for s in SECTIONS for t in s.parts}
    for section in SECTIONS:
        lines += [f"## {section.title}\n", f"{section.text}\n"]
        for thing, key in section.parts.items():
            lines += [f"### {thing.__name__}\n", *_part(thing, key, links)]
    return "\n".join(lines).rstrip() + "\n"


def _own_arguments(thing: Callable, links: dict[str, str]) -> list[Argument]:
    parent = shares_with(thing)
    shared = {a.name for a in arguments(parent)} if parent else set()
    return [a for a in arguments(thing, links) if a.name not in shared]


def shares_with(thing: Callable) -> Callable | None:
    """Whose arguments ``thing`` has besides those that the page gives under its own heading: the
    settings of a transformer, or the class whose constructor it inherits; None: nobody's.
    """
    if thing in (detectors.deformable_detr, detectors.dino, DeformableSettings):
        return TransformerSettings if thing is DeformableSettings else DeformableSettings
    if thing is detectors.dab_detr:
        return TransformerSettings
    listed = {part for section in SECTIONS for part in section.parts}
    parents = inspect.getmro(thing)[1:] if inspect.isclass(thing) else ()
    return next((p for p in parents if p in listed and p.__init__ is thing.__init__), None)


def _part(thing: Callable, key: str, links: dict[str, str]) -> Iterator[str]:
    """The text and the table of one class or function."""
    where = f" In the configs: `{key}`." if key else ""
    yield f"`{_public_name(thing)}`. {on_one_line(summary(thing), links)}{where}\n"
    if parent := shares_with(thing):
        same, others = _defaults(parent), _defaults(thing)
        yield (
            f"Takes what [`{parent.__name__}`](#{parent.__name__.lower()}) takes"
            + "".join(
                f"{', with ' if i == 0 else ', '}`{name}={others[name]}`"
                for i, name in enumerate(n for n in same if others[n] != same[n])
            )
            + ".\n"
        )
    found = _own_arguments(thing, links)
    prefix = f"{key}." if key else ""
    yield from _table(replace(a, name=prefix + a.name) for a in found)


def _defaults(thing: Callable) -> dict[str, str]:
    return {a.name: a.default for a in arguments(thing)}


def _public_name(thing: Callable) -> str:
    """The name under which a config names it: of the package that exports it."""
    room = thing.__module__.split(".")[1]
    if thing is KDDETR:
        return "kddetr.KDDETR"
    is_public = thing.__name__ in getattr(importlib.import_module(f"kddetr.{room}"), "__all__", ())
    return f"{f'kddetr.{room}' if is_public else thing.__module__}.{thing.__name__}"


def _table(rows: Iterable[Argument]) -> list[str]:
    """A table of keys; nothing where there are none."""
    lines = [f"| `{row.name}` | {_type_and_default(row)} | {row.meaning} |" for row in rows]
    head = ["| key | type, default | meaning |", "| --- | --- | --- |"]
    return [*head, *lines, ""] if lines else []


def _type_and_default(row: Argument) -> str:
    return f"`{row.type}`, `{row.default}`" if row.default else f"`{row.type}`, required"
