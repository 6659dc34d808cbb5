"""Teachers and students of different families."""

from collections.abc import Iterable

from .lines import EVERY, FULL, HALF, Experiment, Line
from .paper import ALONE_CONFIG, DISTILLED, EVIDENCE, ONLY_GENERAL, ONLY_SPECIFIC, QUICK

DAB, DINO, RCNN = "DAB-DETR", "DINO", "Faster R-CNN"
DINO_TEACHER = Line(
    "dino_teacher",
    (f"{DINO}, the teacher", "", ""),
    f"{QUICK}/dino_teacher.py",
    iterations=3000,
    folder="output/quickstart_dino/teacher",
    seeds=1,
)
MOVED = (
    "model.sampler.samplers=[{_target_: kddetr.points.GeneralSampler, count: 50},"
    " {_target_: kddetr.points.NearbySampler}]",
)
POINTS = {
    "both": ("general and specific", ()),
    "moved": ("general, and the teacher's boxes moved", MOVED),
    "general": ("general", ONLY_GENERAL),
    "specific": ("specific", ONLY_SPECIFIC),
}


def _taught(
    student: str,
    teacher: str,
    config: str,
    points: Iterable[str] = ("both", "general", "specific"),
) -> list[Line]:
    """A student and its teacher, a line for each kind of points."""
    before = DINO_TEACHER if teacher == DINO else None
    short = "dino" if before else "dab"
    return [
        Line(
            f"from_{short}_{name}",
            (student, teacher, POINTS[name][0]),
            config,
            POINTS[name][1],
            after=before,
        )
        for name in points
    ]


def _rcnn_of_weight(weight: str) -> Line:
    """The R-CNN of the default line with another weight of the distillation."""
    title = (RCNN, DAB, f"general and specific, weight {weight}")
    config, override = f"{QUICK}/faster_rcnn_distilled.py", f"model.weight={weight}"
    return Line(f"from_dab_{weight}", title, config, (override,))


def _experiment(name: str, *lines: Line, iterations: int = HALF) -> Experiment:
    return Experiment(
        name,
        "families",
        (DINO_TEACHER, *lines),
        iterations=iterations,
        heads=("student", "teacher", "points"),
        columns=("iterations", *EVERY),
    )


EXPERIMENTS = (
    _experiment(
        "to_dab",
        Line("alone", (DAB, "", ""), ALONE_CONFIG),
        *_taught(DAB, DAB, DISTILLED),
        *_taught(DAB, DINO, f"{QUICK}/anchors_distilled_from_dino.py"),
    ),
    _experiment(
        "to_dab_long",
        Line("alone", (DAB, "", ""), ALONE_CONFIG),
        *_taught(DAB, DAB, DISTILLED, ["both", "specific"]),
        *_taught(
            DAB, DINO, f"{QUICK}/anchors_distilled_from_dino.py", ["both", "specific", "moved"]
        ),
        iterations=FULL,
    ),
    _experiment(
        "to_dino",
        Line("alone", (DINO, "", ""), f"{QUICK}/dino_alone.py"),
        *_taught(DINO, DINO, f"{QUICK}/dino_distilled.py", ["both"]),
    ),
    _experiment(
        "to_rcnn",
        Line("alone", (RCNN, "", ""), f"{QUICK}/faster_rcnn_alone.py"),
        *_taught(RCNN, DAB, f"{QUICK}/faster_rcnn_distilled.py", ["both"]),
        *map(_rcnn_of_weight, ("0.3", "5.6", "auto")),
        *_taught(RCNN, DINO, f"{EVIDENCE}/faster_rcnn_from_dino.py", ["both"]),
    ),
)
