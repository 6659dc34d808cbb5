"""What an experiment is: a table whose lines are trainings that differ in one thing."""

from dataclasses import dataclass

FULL, HALF = 1300, 650  # iterations of the quickstart, and of the lines that carry no claim
TRIAL_SEED = 100  # no reported run has it
EVERY = ("seeds", "AP", "AP50", "AP75")
ON_TEST = ("dataloader.test.dataset.names=quickstart_test",)


@dataclass(frozen=True)
class Tuning:
    """A number of the config that is chosen by AP on the validation images.

    Each value is tried once, with a seed that no reported run has and at half length.

    Attributes:
        key: of the config.
        values: in ascending order.
        default: the value that the config has; it needs no override.
        title: the head of its column.
    """

    key: str
    values: tuple[float, ...]
    default: float | None = None
    title: str = "weight"

    def overrides(self, value: float) -> tuple[str, ...]:
        """The overrides that set this value."""
        return () if value == self.default else (f"{self.key}={value:g}",)


@dataclass(frozen=True)
class Line:
    """One way to train a student: a row of a table.

    Attributes:
        name: of the line within its experiment.
        title: its first cell, or its first cells where the experiment has several such columns.
        config: the config file.
        overrides: of the config.
        tuning: a further override, whose value is chosen on the validation images.
        tuned_like: the line whose trials choose that value; empty: it has trials of its own.
        iterations: of the training; 0: those of the experiment.
        same_time_as: the line for whose time it is trained; empty: for its iterations.
        needs: what is made before it, see :mod:`.prepare`.
        after: the line, with a folder of its own, whose trained detector is the teacher.
        folder: where it is trained; empty: in a folder of the program's choice.
        seeds: how many; 0: as many as the experiment has.
        test: the overrides that select the test images, instead of the validation images.
    """

    name: str
    title: str | tuple[str, ...]
    config: str
    overrides: tuple[str, ...] = ()
    tuning: Tuning | None = None
    tuned_like: str = ""
    iterations: int = 0
    same_time_as: str = ""
    needs: tuple[str, ...] = ()
    after: "Line | None" = None
    folder: str = ""
    seeds: int = 0
    test: tuple[str, ...] = ON_TEST


@dataclass(frozen=True)
class Experiment:
    """Lines that are shown in one table.

    Attributes:
        name: of the table.
        part: the section of docs/evidence.md; a short name.
        lines: in the order of the rows.
        baselines: the lines with which the others are compared, a column each.
        iterations: of a training.
        seeds: how many.
        claim: whether it carries a claim of the paper; these are trained first.
        heads: the heads of the cells of the titles.
        columns: of the figures, see :mod:`.tables`.
        on_request: whether it is trained only where it is named, because it downloads
            its images, or needs an optional package.
    """

    name: str
    part: str
    lines: tuple[Line, ...]
    baselines: tuple[str, ...] = ("alone",)
    iterations: int = HALF
    seeds: int = 3
    claim: bool = False
    heads: tuple[str, ...] = ("",)
    columns: tuple[str, ...] = EVERY
    on_request: bool = False

    def line(self, name: str) -> Line:
        """The line with this name."""
        return next(line for line in self.lines if line.name == name)
