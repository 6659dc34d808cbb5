"""The trainings that are still missing, in their order, and their results."""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from comparison import scores, student
from kddetr.engine.metrics import read_metrics
from kddetr.errors import UserError
from runs import Run, RunFailed

from . import ROOT
from .estimate import step_estimate
from .jobs import job_of_line, trials
from .lines import Experiment, Line
from .plan import EXPERIMENTS
from .prepare import overrides_of, prepare
from .results import Job, Result, Results, job_of
from .scales import CPU, Scale, teacher_key
from .started import note_start, noted, recipe
from .steps import measured_costs, needs_idle_machine, read_costs

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass
class Session:
    """A series of trainings, which can be stopped at any time and started again.

    Attributes:
        experiments: whose lines are trained.
        scale: their size.
        results: the file that is filled.
        steps: the file with the time of their steps.
        say: prints a line of progress.
        seeds: the most seeds of a line; None: as many as each experiment has.
        lines: only lines with these names; None: all.
        again: also repeat runs whose config has changed since.
        processes: trainings at the same time.
        failed: what was not trained to its end, by the name of the run.
    """

    experiments: Sequence[Experiment]
    scale: Scale
    results: Results
    steps: Path
    say: Callable[[str], None]
    seeds: int | None = None
    lines: Sequence[str] | None = None
    again: bool = False
    processes: int = 2
    failed: dict[str, str] = field(default_factory=dict)
    _jobs: dict[str, tuple[Job, Line]] = field(default_factory=dict)
    _given: set[tuple] = field(default_factory=set)
    # Whether the folders of teachers hold what their configs say; asked once, because it is slow.
    _ready: dict[Path, bool] = field(default_factory=dict)

    def wanted(self) -> list[tuple[Experiment, Line, int]]:
        """All lines with all seeds: those that carry a claim first, and of these one seed after the
        other.
        """
        found = [
            ((not experiment.claim, seed), (experiment, line, seed))
            for experiment in self.experiments
            if experiment.part not in self.scale.without
            for line in experiment.lines
            if self.lines is None or line.name in self.lines
            for seed in self.scale.seeds(experiment, line)[: self.seeds]
        ]
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def missing(self) -> Iterator[tuple[Experiment, Line, Job]]:
        """The trainings without a result. A tuned line follows when its trials have ended."""
        seen: set[tuple] = set()
        for experiment, line, seed in self.wanted():
            for one, job in self._to_do(experiment, line, seed):
                if job.key not in seen:
                    seen.add(job.key)
                    yield experiment, one, job

    def mark_changed(self) -> None:
        """Note in the file which runs, trials included, have another config or another teacher than
        they would have today.
        """
        now: dict[tuple, dict[str, str]] = {}  # of all seeds and lengths
        wanted: set[tuple] = set()
        for line, job in self._with_result():
            wanted.add(job.key)
            if (alike := (job.config, job.overrides)) not in now:
                overrides = self._overrides(line, job.overrides)
                run = Run("", job.config, Path(), 1, overrides)
                now[alike] = {"settings": recipe(job.config, overrides), "teacher": run.weights()}

        def changed(result: Result) -> bool | None:
            job = job_of(result)
            if job.key not in wanted:
                return None
            today = now[job.config, job.overrides]
            # A teacher that is not on this machine cannot be compared.
            teachers = {result.get("teacher"), today["teacher"]} - {"", None}
            return result["settings"] != today["settings"] or len(teachers) > 1

        self.results.mark(changed)

    def runs(self) -> Iterator[Run | None]:
        """The runs to start, one after the other; None while all that are missing wait for others
        that are being trained.
        """
        while True:
            todo = [item for item in self.missing() if item[2].key not in self._given]
            if not todo and not self._jobs:
                return
            if not todo:
                yield None
                continue
            experiment, line, job = todo[0]
            if not job.iterations and self._jobs and needs_idle_machine():
                yield None
                continue
            self._given.add(job.key)
            try:
                prepare(line, self.scale, self.say)
                if not job.iterations:  # it is of equal time, and the time is not known yet
                    job = self._job(experiment, line, job.seed, measure=True)
                run = self._run(experiment, line, job)
                if not run.finished:
                    note_start(run)
            except UserError as error:
                name = f"{experiment.name}/{line.name} seed {job.seed}"
                self.failed[name] = str(error)
                self.say(f"{name} cannot be trained: {error}")
                continue
            self._jobs[run.name] = job, line
            yield run

    def finished(self, run: Run) -> None:
        """Evaluate the student of a finished run on the test images, and write the result."""
        job, line = self._jobs.pop(run.name)
        self._ready.pop(run.output, None)
        self.results.add(result_of(job, run, noted(run), line.test))
        left = len(list(self.missing()))
        self.say(f"{run.name}: written; {left} runs are left, {self.left()}")

    def give_up(self, run: Run, reason: str) -> None:
        """Note a run that failed, and go on with the others."""
        self._jobs.pop(run.name)
        self.failed[run.name] = reason
        self.say(reason)

    def left(self) -> str:
        """How long the missing runs will take on an idle machine, see :mod:`.estimate`."""
        step = step_estimate([*EXPERIMENTS, *self.experiments], self.steps, self.results)
        seconds: dict[object, float] = {}

        def count(key: object, experiment: Experiment, line: Line, iterations: int) -> None:
            if line.same_time_as:
                line = experiment.line(line.same_time_as)
                iterations = self.scale.iterations(experiment, line)
            seconds.setdefault(key, self.scale.around + iterations * step(line))

        for experiment, line, job in self.missing():
            count(job.key, experiment, line, job.iterations)
        # And what waits for these: for a teacher, or for the trials of a value.
        for experiment, line, seed in self.wanted():
            job = job_of_line(experiment, line, seed, self.scale, self.results)
            if job is None or self._lacks(job):
                key = job.key if job else (experiment.name, line.name, seed)
                count(key, experiment, line, self.scale.iterations(experiment, line))
        return f"about {sum(seconds.values()) / self.processes / 60:.0f} minutes"

    def _to_do(self, experiment: Experiment, line: Line, seed: int) -> list[tuple[Line, Job]]:
        """What is missing for one seed of a line: the detector that it needs, or else the trials
        that choose its value, or else its own training.
        """
        before = self._before(line)
        # A result is not enough: the detector may have been trained on another machine.
        if before and not self._has_trained(experiment, before):
            return [(before, self._job(experiment, before, 0))]
        if tried := [(one, job) for one, job in self._trials(experiment, line) if self._lacks(job)]:
            return tried
        own = self._job(experiment, line, seed)
        return [(line, own)] if self._lacks(own) else []

    def _trials(self, experiment: Experiment, line: Line) -> list[tuple[Line, Job]]:
        """The trainings that choose the value of a tuned line, each with the line that it tries."""
        tried = experiment.line(line.tuned_like) if line.tuned_like else line
        return [(tried, job) for job in trials(experiment, line, self.scale).values()]

    def _with_result(self) -> Iterator[tuple[Line, Job]]:
        """The trainings, trials included, that have a result, each with its line."""
        for experiment, line, seed in self.wanted():
            own = job_of_line(experiment, line, seed, self.scale, self.results)
            for one, job in [*self._trials(experiment, line), *([(line, own)] if own else [])]:
                if self.results.get(job):
                    yield one, job

    def _has_trained(self, experiment: Experiment, line: Line) -> bool:
        """Whether the detector of a line with a folder of its own is there, and is that of its
        config: any file could lie in this place.
        """
        folder = self._folder(line)
        if folder not in self._ready:
            job = self._job(experiment, line, 0)
            if not self._trained(line).is_file() or (job, line) in self._jobs.values():
                return False
            try:
                self._ready[folder] = self._run(experiment, line, job).finished
            except RunFailed:  # it is raised again, and reported, when the run is started
                self._ready[folder] = False
        return self._ready[folder]

    def _lacks(self, job: Job) -> bool:
        result = self.results.get(job)
        return result is None or (self.again and bool(result.get("config_changed")))

    def _job(self, experiment: Experiment, line: Line, seed: int, measure: bool = False) -> Job:
        costs = read_costs(self.steps, experiment)
        if measure and not costs:
            costs = measured_costs(self.steps, experiment, self.scale, self.say, self._overrides)
        job = job_of_line(experiment, line, seed, self.scale, self.results, costs)
        assert job is not None, "its trials have ended"
        return job

    def _run(self, experiment: Experiment, line: Line, job: Job) -> Run:
        overrides = [f"train.seed={job.seed}", *self._overrides(line, job.overrides)]
        name = f"{experiment.name}/{line.name} {' '.join(job.overrides[len(line.overrides) :])}"
        run = Run(
            f"{name.strip()} seed {job.seed}",
            job.config,
            self._folder(line),
            job.iterations,
            overrides,
        )
        if not line.folder:
            # Another config trains in another folder, so what is there may always be resumed.
            stem = Path(job.config).stem
            run.output = self.scale.output / f"{stem}_{run.settings()[:12]}"
        return run

    def _before(self, line: Line) -> Line | None:
        """The line whose detector is the teacher of this one."""
        if self.scale.needs_teacher(line.config):
            return self.scale.teacher_line
        return line.after

    def _overrides(self, line: Line, overrides: Sequence[str] | None = None) -> list[str]:
        """All overrides of a run: those of the line or of a job of it, and those of the scale."""
        found = self.scale.fitting(line.config, line.overrides if overrides is None else overrides)
        before = self._before(line)
        if before and self.scale is not CPU:
            key = teacher_key(line.config)
            found.append(f"model.{key}.checkpoint={self._trained(before)}")
        return [*found, *overrides_of(line, self.scale)]

    def _trained(self, line: Line) -> Path:
        return self._folder(line) / "model_final.pth"

    def _folder(self, line: Line) -> Path:
        """The folder of a line that has one of its own, as the configs name it."""
        return ROOT / line.folder if self.scale is CPU else self.scale.output / line.folder


def result_of(job: Job, run: Run, start: Mapping[str, Any], test: Sequence[str]) -> Result:
    """The line of a finished run: AP on the test images, ``val_...`` on the validation images, in
    percent.

    Args:
        start: what was noted when it was started, see :mod:`.started`.
        test: the overrides that select the test images.
    """
    metrics = read_metrics(run.output)
    last = [m for m in metrics if "bbox/AP" in m][-1]
    steps = [m["time"] for m in metrics if "time" in m]
    on_test = scores(student(run), FIGURES, run.config, test)
    return {
        "config": job.config,
        "overrides": list(job.overrides),
        "seed": job.seed,
        "iterations": job.iterations,
        "same_time_as": job.same_time_as,
        **{name: _number(on_test[name]) for name in FIGURES},
        **{f"val_{name}": _number(last.get(f"bbox/{name}", math.nan)) for name in FIGURES},
        "seconds": round(run.evaluations()[-1][1][0], 1),
        "step_seconds": round(statistics.median(steps), 4) if steps else None,
        **start,
    }


def _number(value: float) -> float | None:
    """The value rounded; None where there are no objects of a size."""
    return round(float(value), 4) if math.isfinite(value) else None
