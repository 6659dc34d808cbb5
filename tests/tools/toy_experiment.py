"""A small made-up experiment for the tests of evidence.py, and results of it."""

from pathlib import Path

from experiments.jobs import job_of_line
from experiments.lines import Experiment, Line, Tuning
from experiments.results import Job, Results
from experiments.scales import CPU
from experiments.session import FIGURES

ALONE = Line("alone", "alone", "configs/a.py")
OTHER = Line("other", "other", "configs/b.py", ("x=1",))
TUNED = Line("tuned", "tuned", "configs/b.py", tuning=Tuning("w", (0.3, 1.0, 3.0), default=1.0))
LONGER = Line("longer", "longer", "configs/a.py", same_time_as="other")
TOY = Experiment("toy", "part", (ALONE, OTHER, TUNED, LONGER), iterations=100, seeds=2)


def result(job: Job, ap: float, **more) -> dict:
    """A made-up line of the file."""
    of_job = {name: getattr(job, name) for name in ("config", "seed", "iterations")}
    figures = dict.fromkeys(FIGURES, ap) | {f"val_{name}": ap for name in FIGURES}
    rest = {"seconds": 10.0, "step_seconds": 0.1, "settings": "", "commit": "abc"}
    return (
        of_job
        | {"overrides": list(job.overrides), "same_time_as": job.same_time_as}
        | figures
        | rest
        | more
    )


def filled(file: Path, aps: dict[str, list[float]], experiment: Experiment = TOY) -> Results:
    """A file with the APs of each line by seed."""
    results = Results(file)
    for name, values in aps.items():
        for seed, ap in enumerate(values):
            job = job_of_line(experiment, experiment.line(name), seed, CPU, results)
            results.add(result(job, ap))
    return results
