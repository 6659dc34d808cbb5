"""All experiments: those of docs/evidence.md in its order, and that of docs/realtime.md."""

from collections.abc import Iterable, Sequence

from kddetr.errors import UsageError, did_you_mean

from . import choices, families, forms, labels, paper, real, realtime, rivals, savings
from .lines import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    *paper.EXPERIMENTS,
    *choices.EXPERIMENTS,
    *labels.EXPERIMENTS,
    *rivals.EXPERIMENTS,
    *families.EXPERIMENTS,
    *savings.EXPERIMENTS,
    *forms.EXPERIMENTS,
    *real.EXPERIMENTS,
    *realtime.EXPERIMENTS,
)


def named(names: Iterable[str] | None) -> Sequence[Experiment]:
    """The experiments with these names, or of the parts with these names; None: all but those
    that have to be asked for.

    Raises:
        UsageError: there is none with a name.
    """
    if names is None:
        return [e for e in EXPERIMENTS if not e.on_request]
    known = {e.name for e in EXPERIMENTS} | {e.part for e in EXPERIMENTS}
    for name in names:
        if name not in known:
            raise UsageError(f"There is no experiment {name!r}; {did_you_mean(name, known)}")
    return [e for e in EXPERIMENTS if {e.name, e.part} & set(names)]


def check_lines(experiments: Iterable[Experiment], names: Iterable[str]) -> None:
    """Refuse a name that no line of these experiments has.

    Raises:
        UsageError: a name is of no line.
    """
    known = {line.name for experiment in experiments for line in experiment.lines}
    for name in names:
        if name not in known:
            raise UsageError(
                f"No line of the chosen experiments is named {name!r}; {did_you_mean(name, known)}"
            )
