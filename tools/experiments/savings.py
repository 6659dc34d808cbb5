"""What a cheaper distillation saves and what it costs in AP: fewer points, a recorded teacher,
pseudo-labels of the same teacher.

Every way is trained for the same iterations, and some also for the time of the live teacher.
"""

from .lines import EVERY, Experiment, Line
from .paper import DISTILLED, ONLY_SPECIFIC, QUICK
from .prepare import THRESHOLD, THRESHOLDS, pseudo_labels

COLUMNS = ("iterations", "step", *EVERY)
LABELLED = Experiment(
    "savings_labelled",
    "savings",
    (
        Line("alone", "alone", f"{QUICK}/alone.py"),
        Line("distilled", "50 general and 50 specific points, all layers", DISTILLED),
        Line(
            "general_25",
            "25 general, 50 specific",
            DISTILLED,
            ("model.sampler.samplers.0.count=25",),
        ),
        Line("specific", "50 specific", DISTILLED, ONLY_SPECIFIC),
        Line(
            "last_layer",
            "last student layer only",
            DISTILLED,
            ("model.loss.student_layers=last",),
        ),
    ),
    baselines=("alone", "distilled"),
    iterations=1000,
    columns=COLUMNS,
)


def labels_from(threshold: float) -> tuple[str, ...]:
    """The override that trains on these pseudo-labels."""
    return (f"dataloader.train.unlabeled.json_file={pseudo_labels(threshold)}",)


def _with_unlabelled(name: str, iterations: int, prefix: str = "", kind: str = "") -> Experiment:
    """The ways to use the images without labels, for one student."""
    recorded, pseudo = ("record",), (f"pseudo-labels {THRESHOLD}",)

    def line(way: str, title: str, config: str, **more) -> Line:
        overrides = labels_from(THRESHOLD) if config == "pseudo_labels" else ()
        return Line(way, title, f"{QUICK}/{prefix}{config}.py", overrides, **more)

    as_long = {"same_time_as": "live"}
    return Experiment(
        name,
        "savings",
        (
            line("alone", "alone, labelled images only", "alone"),
            line("live", "live teacher, general and specific points", "distilled_unlabeled"),
            line("specific", "live teacher, specific points", f"{kind}specific"),
            line("recorded", "recorded teacher", f"{kind}recorded", needs=recorded),
            line("pseudo", "hard pseudo-labels", "pseudo_labels", needs=pseudo),
            line(
                "recorded_longer",
                "recorded teacher, equal time",
                f"{kind}recorded",
                needs=recorded,
                **as_long,
            ),
            line(
                "pseudo_longer",
                "hard pseudo-labels, equal time",
                "pseudo_labels",
                needs=pseudo,
                **as_long,
            ),
        ),
        baselines=("alone", "live"),
        iterations=iterations,
        columns=COLUMNS,
    )


THRESHOLD_CHOICE = Experiment(
    "savings_threshold",
    "savings",
    tuple(
        Line(
            f"pseudo_{threshold}",
            f"pseudo-labels from a score of {threshold}",
            f"{QUICK}/pseudo_labels.py",
            labels_from(threshold),
            needs=(f"pseudo-labels {threshold}",),
        )
        for threshold in THRESHOLDS
    ),
    baselines=(f"pseudo_{THRESHOLDS[0]}",),
    iterations=1000,
    columns=COLUMNS,
)
EXPERIMENTS = (
    LABELLED,
    _with_unlabelled("savings_detr", 1000, kind="distilled_"),
    _with_unlabelled("savings_rcnn", 500, "faster_rcnn_"),
    THRESHOLD_CHOICE,
)
