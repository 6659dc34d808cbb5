"""The numbers of the paper (KD-DETR, CVPR 2024, arXiv 2211.08071 v3; COCO val2017 AP in percent),
and the recipe in configs/ for each of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The training that gives the number of a cell.

    Attributes:
        config: the config file in configs/, without ``.py``.
        changes: overrides of the config.
        output: name of the output folder; by default the name of the config.
        gpus: the number of processes in the command. The class term of the published loss is a sum
            over the images of a process, of which the published commands have 8. A distillation
            with that loss therefore uses one process for 8 images of its batch.
        batch: the batch size in the command, if it is not that of the config.
        teacher: the recipe of the teacher.
    """

    config: str
    changes: tuple[str, ...] = ()
    output: str = ""
    gpus: int = 8
    batch: int | None = None
    teacher: "Recipe | None" = None

    @property
    def folder(self) -> str:
        return self.output or self.config.rpartition("/")[2]


@dataclass(frozen=True)
class Line:
    """A line of the paper's main table; None where the paper has no number."""

    student: str
    teacher: str
    epochs: str
    alone: float | None
    distilled: float | None
    gain: float
    teacher_ap: float | None
    baseline: Recipe
    pair: Recipe


@dataclass(frozen=True)
class Point:
    """A line of the ablation, a DAB-DETR R18 from a DAB-DETR R50: the points used, and AP, AP50,
    AP75."""

    general: bool
    specific: bool
    foreground: bool
    ap: tuple[float, float, float]
    recipe: Recipe


def _alone(name: str) -> Recipe:
    return Recipe(f"detectors/{name}")


def _pair(student: str, teacher: str, **options) -> Recipe:
    return Recipe(f"distill/{student}_from_{teacher}", teacher=_alone(teacher), **options)


# The published commands of the DAB-DETR pairs: 8 processes of 8 images.
_DAB = {"gpus": 8, "batch": 64}
_DEFORMABLE = {"gpus": 4}
_DINO = {"gpus": 2}

LINES = (
    Line(
        *("DAB-DETR R18", "DAB-DETR R50", "50", 36.2, 41.4, 5.2, None),
        baseline=_alone("dab_detr_r18"),
        pair=_pair("dab_detr_r18", "dab_detr_r50", **_DAB),
    ),
    Line(
        *("DAB-DETR R50", "DAB-DETR R101", "50", 42.1, 45.7, 3.6, 43.5),
        baseline=_alone("dab_detr_r50"),
        pair=_pair("dab_detr_r50", "dab_detr_r101", **_DAB),
    ),
    Line(
        *("Deformable DETR R18", "Deformable DETR R50", "50", 40.1, 43.7, 3.6, None),
        baseline=_alone("deformable_detr_r18"),
        pair=_pair("deformable_detr_r18", "deformable_detr_r50", **_DEFORMABLE),
    ),
    Line(
        *("Deformable DETR R50", "Deformable DETR R101", "50", 44.5, 48.3, 3.8, 48.0),
        baseline=_alone("deformable_detr_r50"),
        pair=_pair("deformable_detr_r50", "deformable_detr_r101", **_DEFORMABLE),
    ),
    Line(
        *("DINO R18", "DINO R50", "12", 44.0, 48.4, 4.4, None),
        baseline=_alone("dino_r18"),
        pair=_pair("dino_r18", "dino_r50", **_DINO),
    ),
    Line(
        *("DINO R50", "DINO R101", "12 (teacher 36)", 49.0, 51.6, 2.6, 51.3),
        baseline=_alone("dino_r50"),
        pair=_pair("dino_r50", "dino_r101", **_DINO),
    ),
    Line(
        *("Faster R-CNN R50", "DINO R50", "? (here 12)", None, None, 2.1, None),
        baseline=_alone("faster_rcnn_r50"),
        pair=_pair("faster_rcnn_r50", "dino_r50"),
    ),
)

_GENERAL = "{_target_: kddetr.points.GeneralSampler, count: 300, distribution: normal_logit}"
_SPECIFIC = "{_target_: kddetr.points.SpecificSampler}"


def _point(general: bool, specific: bool, foreground: bool, *ap: float) -> Point:
    chosen = {"general": general, "specific": specific, "foreground": foreground}
    if not (general or specific):
        return Point(**chosen, ap=ap, recipe=LINES[0].baseline)
    if all(chosen.values()):
        return Point(**chosen, ap=ap, recipe=LINES[0].pair)
    changes = []
    if not (general and specific):
        changes.append(f"model.sampler.samplers=[{_GENERAL if general else _SPECIFIC}]")
    if not foreground:
        changes.append("model.loss.weighting._target_=kddetr.losses.EqualWeight")
    output = "_".join(["dab_detr_r18", *(name for name, used in chosen.items() if used)])
    recipe = _pair("dab_detr_r18", "dab_detr_r50", changes=tuple(changes), output=output, **_DAB)
    return Point(**chosen, ap=ap, recipe=recipe)


ABLATION = (
    _point(False, False, False, 36.2, 56.1, 37.9),
    _point(True, False, False, 38.7, 59.1, 40.7),
    _point(True, False, True, 39.9, 60.2, 42.5),
    _point(False, True, False, 40.0, 60.5, 42.4),
    _point(False, True, True, 40.2, 60.7, 42.8),
    _point(True, True, True, 41.4, 61.4, 44.2),
)
