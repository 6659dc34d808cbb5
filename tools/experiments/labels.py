"""Where distillation pays: how many labels there are, and how large the student is."""

from dataclasses import replace

from .forms import boxes
from .lines import EVERY, Experiment, Line
from .paper import ALONE_CONFIG, DISTILLED, EVIDENCE, weighted

LABELS = (100, 300, 1000, 4000)
LONG = 1600
CONVERGED = 4 * LONG
HALF_UNLABELLED = "dataloader.train.unlabeled_per_batch=4"
# A student of 96,000 parameters; the quickstart's has 353,000.
SMALL = {
    "backbone.channels": "[16,16,32]",
    "embed_dim": "32",
    "feedforward_dim": "64",
}


def _of_labels(count: int, iterations: int = LONG, suffix: str = "") -> Experiment:
    def line(kind: str, title: str, *overrides: str, **more: str) -> Line:
        file = "labels_alone" if kind.startswith("alone") else "labels_distilled"
        counted = (f"dataloader.train.dataset.count={count}", *overrides)
        return Line(kind, title, f"{EVIDENCE}/{file}.py", counted, **more)

    lines = (
        line("alone", "alone"),
        line("alone_longer", "alone, the distilled run's time", same_time_as="distilled"),
        line("distilled", "distilled"),
        line("unlabelled", "distilled, half of each batch unlabelled", HALF_UNLABELLED),
    )
    return Experiment(
        f"labels_{count}{suffix}",
        "labels",
        lines[:3] if count == LABELS[-1] else lines,  # no image is left without a label
        iterations=iterations,
        seeds=1 if iterations > LONG else 3,  # a seed takes 40 minutes of one core
        heads=(f"{count:,} labelled images",),
        columns=("iterations", *EVERY),
    )


def _small(prefix: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{key}={value}" for key, value in SMALL.items())


SMALL_STUDENT = Experiment(
    "small_student",
    "labels",
    (
        Line("alone", "alone", ALONE_CONFIG, _small("model")),
        Line("distilled", "distilled", DISTILLED, _small("model.student")),
        Line(
            "unlabelled",
            "distilled, half of each batch unlabelled",
            DISTILLED,
            (*_small("model.student"), HALF_UNLABELLED),
        ),
        Line(
            "alone_all",
            "alone, 4,000 labelled images",
            ALONE_CONFIG,
            (*_small("model"), "dataloader.train.dataset.names=quickstart_train"),
        ),
        Line(
            "distilled_all",
            "distilled, 4,000 labelled images",
            DISTILLED,
            (*_small("model.student"), "dataloader.train.dataset.names=quickstart_train"),
        ),
    ),
    iterations=LONG,
    heads=("a student of 96,000 parameters",),
    columns=("iterations", *EVERY),
)
# Where neither labels nor iterations are short, only the student's size is left.
_ALL = {line.name: line for line in SMALL_STUDENT.lines if line.name.endswith("_all")}
_DISTILLED_LONG = replace(_ALL["distilled_all"], name="distilled", title="distilled")
SMALL_STUDENT_LONG = Experiment(
    "small_student_long",
    "labels",
    (
        replace(_ALL["alone_all"], name="alone", title="alone"),
        replace(
            _ALL["alone_all"],
            name="alone_longer",
            title="alone, the distilled run's time",
            same_time_as="distilled",
        ),
        _DISTILLED_LONG,
        weighted(_DISTILLED_LONG, 0.3),
        replace(
            _DISTILLED_LONG,
            name="no_boxes",
            title="distilled, classes only",
            overrides=(*_DISTILLED_LONG.overrides, *boxes(0.0, 0.0)),
        ),
    ),
    iterations=CONVERGED,
    seeds=1,
    heads=("a student of 96,000 parameters, 4,000 labelled images",),
    columns=("iterations", *EVERY),
)
LABELS_LONG = _of_labels(LABELS[-1], CONVERGED, "_long")
EXPERIMENTS = (*map(_of_labels, LABELS), LABELS_LONG, SMALL_STUDENT, SMALL_STUDENT_LONG)
