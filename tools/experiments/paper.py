"""The experiments of the paper: where the points come from, and whether they are consistent."""

from dataclasses import replace

from .lines import FULL, Experiment, Line

QUICK, EVIDENCE = "configs/quickstart", "configs/evidence"
ALONE_CONFIG, DISTILLED = f"{QUICK}/alone.py", f"{QUICK}/distilled.py"
EQUAL = "model.loss.weighting._target_=kddetr.losses.EqualWeight"
GENERAL = "{_target_: kddetr.points.GeneralSampler, count: 50}"
SPECIFIC = "{_target_: kddetr.points.SpecificSampler}"


def points(*samplers: str) -> str:
    """The override that selects these samplers of points."""
    return f"model.sampler.samplers=[{', '.join(samplers)}]"


def weighted(line: Line, weight: float) -> Line:
    """The line with another weight of the distillation; 1 is that of the configs."""
    title = f"{line.title}, weight {weight:g}"
    if weight == 1:
        return replace(line, title=title)
    overrides = (*line.overrides, f"model.weight={weight:g}")
    return replace(line, name=f"{line.name}_{weight:g}", title=title, overrides=overrides)


ALONE = Line("alone", "student alone", ALONE_CONFIG)
BOTH_FRW = Line("both_frw", "general and specific points, FRW", DISTILLED)
ONLY_GENERAL, ONLY_SPECIFIC = (points(GENERAL),), (points(SPECIFIC),)
_WAYS = {
    "general": ("general points", (*ONLY_GENERAL, EQUAL)),
    "general_frw": ("general points, FRW", ONLY_GENERAL),
    "specific": ("specific points", (*ONLY_SPECIFIC, EQUAL)),
    "specific_frw": ("specific points, FRW", ONLY_SPECIFIC),
    "both": ("general and specific points", (EQUAL,)),
}
SAMPLING = Experiment(
    "sampling",
    "points",
    (ALONE, *(Line(n, title, DISTILLED, o) for n, (title, o) in _WAYS.items()), BOTH_FRW),
    baselines=("alone", "both_frw"),
    iterations=FULL,
    seeds=5,
    claim=True,
)
# In the tables of weights every weight is trained as long and as often as what it is compared with:
# a single short trial of each would say too little.
SAMPLING_WEIGHT = Experiment(
    "sampling_weight",
    "points",
    (
        ALONE,
        *(weighted(SAMPLING.line("both"), weight) for weight in (0.3, 1, 3, 10)),
        BOTH_FRW,
    ),
    baselines=("alone", "both_frw"),
    iterations=FULL,
    seeds=5,
)

OTHER_PLACES = f"{EVIDENCE}/other_places.py"
SHARES = (0, 25, 50, 75)  # percent; at 100 it is BOTH_FRW
_SHARED = "points of which {} % are shared"
CONSISTENCY = Experiment(
    "consistency",
    "consistency",
    (
        ALONE,
        *(
            Line(
                f"share_{share}",
                _SHARED.format(share),
                OTHER_PLACES,
                (f"model.query_placement.share={share / 100}",),
            )
            for share in SHARES
        ),
        BOTH_FRW,
        Line("index", "own queries, paired by index", f"{EVIDENCE}/index_pairing.py"),
        Line("hungarian", "own queries, Hungarian pairs", f"{EVIDENCE}/hungarian_pairing.py"),
        Line(
            "queries_100",
            "100 queries instead of 50, no teacher",
            ALONE_CONFIG,
            ("model.num_queries=100",),
        ),
        Line("shuffled", "answers about another image", f"{EVIDENCE}/shuffled_answers.py"),
    ),
    baselines=("alone", "both_frw"),
    iterations=FULL,
    seeds=5,
    claim=True,
)
# A wrong target may be best with a smaller weight.
CONSISTENCY_WEIGHT = Experiment(
    "consistency_weight",
    "consistency",
    (
        ALONE,
        *(
            weighted(CONSISTENCY.line(name), weight)
            for name in ("both_frw", "share_0", "index", "hungarian")
            for weight in (0.1, 0.3, 1)
        ),
    ),
)
EXPERIMENTS = (SAMPLING, SAMPLING_WEIGHT, CONSISTENCY, CONSISTENCY_WEIGHT)
