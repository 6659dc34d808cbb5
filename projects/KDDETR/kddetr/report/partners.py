"""The runs beside a run with which it can be compared: other seeds, and the student alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from ..errors import UserError
from .comparison import Difference, compare_runs
from .grouping import comparable, deciding_differences, is_of_distillation, same_data
from .run import Run, read_run
from .sample import Deadline

MOST_FOLDERS = 40  # beside the run, the latest first


@dataclass(frozen=True)
class Partners:
    """What a distilled run is compared with.

    Attributes:
        difference: to the student alone.
        notes: sentences of the comparison, and where the runs were found.
        alone: the run of the student alone with the same seed, or else the first one.
    """

    difference: Difference
    notes: tuple[str, ...]
    alone: Run


def find_partners(run: Run, given: Sequence[Run] = (), *, deadline: Deadline) -> Partners | None:
    """Compare a distilled run with the same student that was trained alone.

    Args:
        run: the distilled run.
        given: runs of the student alone, where the user names some. Otherwise they are the finished
            runs in the folders beside that of the run that have the same settings, the seed and
            the distillation left out; and so are further seeds of the distilled run.
        deadline: no folder is looked into after it.

    Returns:
        None for a run that was not distilled or not evaluated, and where no run of the student
        alone is found.

    Raises:
        UsageError: the runs that the user names were trained or evaluated on other data.
    """
    if not run.is_distilled or not run.evaluations:
        return None
    beside = _beside(run, deadline)
    alone = list(given) or [other for other in beside if not other.is_distilled]
    if not alone:
        return None
    others = [other for other in beside if other.is_distilled]
    comparison = compare_runs([*alone, run, *others])
    own = next(one for one in comparison.differences if run in one.group.runs)
    same_seed = [other for other in own.baseline.runs if other.seed == run.seed]
    names = ", ".join(str(one.folder) if given else one.name for one in own.baseline.runs)
    found = "named" if given else "found in the folders beside this one"
    notes = (f"Runs of the student alone that were {found}: {names}.",)
    return Partners(own, (*notes, *comparison.notes), (same_seed or list(own.baseline.runs))[0])


def _beside(run: Run, deadline: Deadline) -> list[Run]:
    """The finished runs beside a run with its settings but for the distillation and the seed, each
    seed once.
    """
    own = comparable(run.cfg)
    here = run.folder.resolve()
    folders = [one.parent for one in here.parent.glob("*/config.yaml") if one.parent != here]
    folders.sort(key=lambda folder: -(folder / "config.yaml").stat().st_mtime)
    found: dict[tuple[bool, int], Run] = {(True, run.seed): run}
    for folder in folders[:MOST_FOLDERS]:
        if deadline.is_over:
            break
        if other := _partner(run, own, folder):
            found.setdefault((other.is_distilled, other.seed), other)
    return [other for other in found.values() if other is not run]


def _partner(run: Run, own: DictConfig, folder: Path) -> Run | None:
    """The run in a folder, where it can be compared with this one."""
    try:
        other = read_run(folder)
    except (UserError, OSError, ValueError):  # another program's folder, or a damaged run
        return None
    if not other.is_finished or other.metric != run.metric:
        return None
    cfg = comparable(other.cfg)
    unlike = deciding_differences(own, cfg)
    if not other.is_distilled:
        unlike = {key: pair for key, pair in unlike.items() if not is_of_distillation(key)}
    return None if unlike or same_data(own, cfg) else other
