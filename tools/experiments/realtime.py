"""A real-time detector of another library as the student, see docs/realtime.md."""

from .labels import HALF_UNLABELLED
from .lines import EVERY, Experiment, Line, Tuning
from .paper import QUICK

# Chosen for the student alone, on the validation images; the distilled students take it too.
RATE = Tuning("optimizer.lr", (1e-3, 2e-3, 4e-3, 8e-3), 2e-3, "learning rate")


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


EXPERIMENTS = (
    Experiment(
        "realtime",
        "realtime",
        (
            _line("alone", "alone"),
            _line("alone_longer", "alone, the distilled run's time", same_time_as="distilled"),
            _line("distilled", "distilled"),
            _line("unlabelled", "distilled, half of each batch unlabelled", HALF_UNLABELLED),
            _line("anchor", "distilled, content by the anchor", "model.student.content=anchor"),
        ),
        iterations=1300,
        heads=("RT-DETRv2",),
        columns=("iterations", "tuned", "step", *EVERY),
        on_request=True,  # the package transformers is an extra
    ),
)
