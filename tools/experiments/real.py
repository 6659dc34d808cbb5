"""The experiment with real images: tree crowns in aerial photographs, see :mod:`.trees`."""

from .lines import Experiment, Line, Tuning
from .paper import EVIDENCE
from .trees import TREES

# Chosen for the student alone, on the validation photograph; the distilled students take it too.
RATE = Tuning("optimizer.lr", (1e-3, 2e-3, 4e-3), 2e-3, "learning rate")
HALF = (f"dataloader.train.dataset.json_file={TREES}/train_labeled.json",)
UNLABELLED = (*HALF, "dataloader.train.unlabeled_per_batch=4")
NEEDS = ("trees",)
OTHER_FOREST = (f"dataloader.test.dataset.json_file={TREES}/test.json",)
ALL_LABELS, HALF_OF_LABELS = "all", "upper half of the photograph"

TEACHER = Line(
    "teacher",
    ("teacher", ALL_LABELS),
    f"{EVIDENCE}/trees_teacher.py",
    iterations=2000,
    needs=NEEDS,
    folder="output/evidence/trees_teacher",
    seeds=1,
    test=OTHER_FOREST,
)


def _student(name: str, title: str, labels: str, overrides: tuple[str, ...] = ()) -> Line:
    distilled = not name.startswith("alone")
    return Line(
        name,
        (title, labels),
        f"{EVIDENCE}/trees_{'distilled' if distilled else 'alone'}.py",
        overrides,
        RATE,
        tuned_like="" if name == "alone" else "alone",
        needs=NEEDS,
        after=TEACHER if distilled else None,
        test=OTHER_FOREST,
    )


LINES = (
    TEACHER,
    _student("alone", "student alone", ALL_LABELS),
    _student("distilled", "distilled", ALL_LABELS),
    _student("alone_half", "student alone", HALF_OF_LABELS, HALF),
    _student("distilled_half", "distilled", HALF_OF_LABELS, HALF),
    _student(
        "unlabelled_half",
        "distilled, half of each batch from the unlabelled half",
        HALF_OF_LABELS,
        UNLABELLED,
    ),
)


def _experiment(name: str, columns: tuple[str, ...]) -> Experiment:
    return Experiment(
        name,
        "real",
        LINES,
        baselines=("alone", "alone_half"),
        iterations=2000,
        heads=("detector", "labels"),
        columns=columns,
        on_request=True,
    )


# The same trainings, judged on two sets of images.
EXPERIMENTS = (
    _experiment("real", ("seeds", "tuned", "val_AP", "val_AP50", "val_AP75")),
    _experiment("real_other_forest", ("seeds", "AP", "AP50", "AP75")),
)
