"""What the programs share that train a student in several ways and compare the outcomes."""

import argparse
import contextlib
import io
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from training_runs import ROOT, Run, run_all

from kddetr.checkpoint import load_pretrained
from kddetr.engine import Trainer, build, load_config
from kddetr.quickstart import make_quickstart_data, quickstart_root

METRICS = ("AP", "AP50", "AP75")
LONGER = "alone_same_time"
NAMES = {
    "alone": "student alone",
    LONGER: "student alone, distilled run's time",
    "distilled": "distilled",
    "distilled_unlabeled": "distilled + unlabelled",
}


def arguments(description: str, *, output: str, seeds: str) -> argparse.ArgumentParser:
    """The options that all of them have.

    Args:
        description: of the program.
        output: its folder below the project's root, where none is named.
        seeds: what to say about several.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="of the first run (default 0)")
    parser.add_argument("--seeds", type=positive, default=1, help=seeds)
    parser.add_argument("--iterations", type=positive, default=None, help="default: the configs'")
    parser.add_argument("--output", type=_folder, default=ROOT / output, help=f"default: {output}")
    return parser


def _folder(text: str) -> Path:
    """Absolute: trainings are started in the project's root, wherever this program was."""
    return Path(text).resolve()


def positive(text: str) -> int:
    """A number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def begin() -> Callable[[str], None]:
    """Set one thread and make the data; returns what prints a line with the seconds so far."""
    torch.set_num_threads(1)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    say("making the data: handwritten digits on photographs")
    make_quickstart_data(quickstart_root(), progress=False)
    return say


@dataclass(frozen=True)
class Comparison:
    """A student alone and distilled: same initial weights, same order of the images.

    Attributes:
        configs: the file of each way of training, "alone" among them; the slowest first, so that
            two processes end together.
        output: folder of all runs.
    """

    configs: Mapping[str, str]
    output: Path

    def train(
        self, seeds: Sequence[int], iterations: int | None, say: Callable[[str], None]
    ) -> dict[int, dict[str, Run]]:
        """All runs of all seeds, finished, by seed and name.

        With several seeds the student alone also gets the time that its distilled twin took.
        """
        iterations = iterations or load_config(str(ROOT / self.configs["alone"])).train.max_iter
        runs = {
            seed: {name: self._run(name, name, seed, iterations) for name in self.configs}
            for seed in seeds
        }
        say(
            f"training {len(self.configs)} students for {iterations} iterations,"
            f" seeds {list(seeds)}"
        )
        run_all([run for group in runs.values() for run in group.values()], say=say)
        if len(seeds) > 1:
            longer = {seed: self._same_time(seed, group) for seed, group in runs.items()}
            say(
                "the student alone again, in the time that its distilled twin took:"
                f" {longer[seeds[0]].iterations} iterations"
            )
            run_all(list(longer.values()), say=say)
            for seed, run in longer.items():
                runs[seed][LONGER] = run
        return runs

    def _same_time(self, seed: int, group: Mapping[str, Run]) -> Run:
        """The student alone with as many iterations as fit into the distilled run's seconds."""
        plain, distilled = (group[name].evaluations()[-1][1][0] for name in ("alone", "distilled"))
        iterations = round(group["alone"].iterations * distilled / plain)
        return self._run(LONGER, "alone", seed, iterations)

    def _run(self, name: str, config: str, seed: int, iterations: int) -> Run:
        return Run(
            name=NAMES[name] + (f" (seed {seed})" if seed else ""),
            config=self.configs[config],
            output=self.output / f"seed{seed}" / name,
            iterations=iterations,
            overrides=[f"train.seed={seed}"],
        )


def shipped_teacher() -> torch.nn.Module:
    """The teacher that the package carries."""
    node = load_config(str(ROOT / "configs/quickstart/distilled.py")).model.teacher.detector
    return load_pretrained(build(node.model), node.checkpoint)


def student(run: Run) -> torch.nn.Module:
    """A finished run's student: a plain detector from a plain detector's file."""
    detector = Trainer.build_detector(load_config(str(ROOT / run.config)))
    return load_pretrained(detector, str(run.checkpoint))


def scores(detector: torch.nn.Module) -> dict[str, float]:
    """AP, AP50 and AP75 in percent on the test images."""
    cfg = load_config(str(ROOT / "configs/quickstart/alone.py"))
    cfg.dataloader.test.dataset.names = "quickstart_test"
    with contextlib.redirect_stdout(io.StringIO()):
        found = Trainer.test(cfg, detector.eval())["bbox"]
    return {name: found[name] for name in METRICS}


def outcome(run: Run, detector: torch.nn.Module) -> dict:
    """A finished run's figures.

    Args:
        run: it.
        detector: its student.

    Returns:
        :func:`scores`, ``val`` (AP on the validation images), ``iterations``, ``seconds`` of
        training steps, ``parameters``.
    """
    iterations, (seconds, val) = run.evaluations()[-1]
    return {
        **scores(detector),
        "val": val,
        "iterations": iterations,
        "seconds": round(seconds, 1),
        "parameters": parameters(detector),
    }


def parameters(detector: torch.nn.Module) -> int:
    """How many numbers there are to train."""
    return sum(p.numel() for p in detector.parameters())


def result(seed: int, teacher: float, outcomes: Mapping[str, Mapping]) -> dict:
    """One seed's part of a results.json: AP by name, and what else there is by kind and name."""
    kinds = ("iterations", "seconds", "val")
    return {
        "teacher": teacher,
        **{name: found["AP"] for name, found in outcomes.items()},
        "seed": seed,
        **{kind: {name: found[kind] for name, found in outcomes.items()} for kind in kinds},
    }


def write_results(output: Path, results: Sequence[dict]) -> None:
    """Each seed's results.json in its folder, and that of all: the first's, with all of several."""
    for one in results:
        write(output / f"seed{one['seed']}" / "results.json", one)
    write(output / "results.json", results[0] | ({"seeds": results} if len(results) > 1 else {}))


def write(path: Path, value: dict) -> None:
    """As indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_lines(path: Path, lines: Sequence[dict]) -> None:
    """As JSON, one a line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path: Path, wanted: Sequence[str]) -> list[dict]:
    """A results.jsonl.

    Args:
        path: the file.
        wanted: what each line must have.

    Raises:
        ValueError: there is no such file, it is empty, or a line of it is no result.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}: give the results.jsonl of an earlier run.")
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not isinstance(line, dict) or set(wanted) - line.keys():
            raise ValueError(
                f"{path}, line {number}, is no result of this program, which has"
                f" {', '.join(sorted(wanted))}: give it a file that it wrote."
            )
        lines.append(line)
    if not lines:
        raise ValueError(f"{path} is empty: give it a file that this program wrote.")
    return lines


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean, and of several the sample standard deviation."""
    mean = f"{statistics.mean(values):{sign}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


CELLS = {
    "parameters": lambda values: f"{values[0] / 1e6:.2f} M",
    "gain": lambda values: spread(values, "+"),
    "iterations": lambda values: f"{statistics.mean(values):.0f}",
    "seconds": lambda values: f"{statistics.mean(values):.0f}",
}


def markdown(columns: Sequence[str], rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """One row a detector.

    Args:
        columns: names of the figures.
        rows: title to figures, of one seed or several; a cell without any stays empty.
    """
    lines = ["| | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 1)]
    for title, figures in rows.items():
        cells = [CELLS.get(c, spread)(figures[c]) if figures.get(c) else "" for c in columns]
        lines.append("|" + "".join(f" {cell} |" if cell else " |" for cell in (title, *cells)))
    return "\n".join(lines)
