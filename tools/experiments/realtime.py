"""A real-time detector of another library as the student, see docs/realtime.md."""

from dataclasses import replace

from .labels import HALF_UNLABELLED
from .lines import EVERY, Experiment, Line, Tuning
from .paper import QUICK

# Chosen for the student alone, on the validation images; the distilled students take it too.
RATE = Tuning("optimizer.lr", (1e-3, 2e-3, 4e-3, 8e-3), 2e-3, "learning rate")
_SLOWER = "rate 0.002"


def _line(name: str, title: str, *overrides: str, same_time_as: str = "") -> Line:
    return Line(
        name,
        title,
        f"{QUICK}/rtdetr_{'alone' if name.startswith('alone') else 'distilled'}.py",
        overrides,
        RATE,
        tuned_like="" if name == "alone" else "alone",
        same_time_as=same_time_as,
    )


def _at_half_the_rate() -> list[Line]:
    """The same rows again with the rate of the config, which has about the same AP on the
    validation images: with the chosen one some distilled runs do not begin to learn.
    """
    rows = (
        _line("alone_slower", f"alone, {_SLOWER}"),
        _line(
            "alone_slower_longer",
            f"alone, {_SLOWER}, the distilled run's time",
            same_time_as="distilled_slower",
        ),
        _line("distilled_slower", f"distilled, {_SLOWER}"),
        _line(
            "unlabelled_slower",
            f"distilled, {_SLOWER}, half of each batch unlabelled",
            HALF_UNLABELLED,
        ),
    )
    return [replace(row, tuning=None, tuned_like="") for row in rows]


EXPERIMENTS = (
    Experiment(
        "realtime",
        "realtime",
        (
            _line("alone", "alone"),
            _line("alone_longer", "alone, the distilled run's time", same_time_as="distilled"),
            _line("distilled", "distilled"),
            _line("unlabelled", "distilled, half of each batch unlabelled", HALF_UNLABELLED),
            *_at_half_the_rate(),
        ),
        baselines=("alone", "alone_slower"),
        iterations=1300,
        heads=("RT-DETRv2",),
        columns=("iterations", "tuned", "step", *EVERY),
        on_request=True,  # the package transformers is an extra
    ),
)
