"""Shared by the programs that train a student in several ways and compare the results."""

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

from kddetr.checkpoint import load_pretrained
from kddetr.engine import Trainer, build, load_config, resolve_device
from kddetr.errors import UsageError
from kddetr.quickstart import make_quickstart_data, quickstart_root
from runs import ROOT, Run, run_all

METRICS = ("AP", "AP50", "AP75")
LONGER = "alone_same_time"
SEVERAL = "number of seeds; with several, the student alone also gets the distilled run's time"
NAMES = {
    "alone": "student alone",
    LONGER: "student alone, distilled run's time",
    "distilled": "distilled",
    "distilled_unlabeled": "distilled + unlabelled",
}


def arguments(
    description: str, *, output: str, seeds: str = "number of seeds (default 1)"
) -> argparse.ArgumentParser:
    """A parser with the options of these programs; ``seeds`` is the help text of ``--seeds``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seeds", type=positive, default=1, help=seeds)
    parser.add_argument("--iterations", type=positive, default=None, help="default: the configs'")
    # The path must be absolute, because trainings are started in the project's root.
    folder = {"type": lambda text: Path(text).resolve(), "default": ROOT / output}
    parser.add_argument("--output", **folder, help=f"default: {output}")
    return parser


def positive(text: str) -> int:
    """The type of an argument that is a whole number of at least 1."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _quickstart_data() -> None:
    make_quickstart_data(quickstart_root(), progress=False)


def begin(make_data: Callable[[], object] = _quickstart_data) -> Callable[[str], None]:
    """Sets PyTorch to one thread and makes the data; returns a function that prints a line of
    progress after the seconds since the start."""
    torch.set_num_threads(1)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    say("making the data: handwritten digits on photographs")
    make_data()
    return say


@dataclass(frozen=True)
class Comparison:
    """Trainings of one student, alone and distilled, with the same initial weights and data order.

    Attributes:
        configs: name of a way of training, one of them "alone", to its config file. The slowest is
            first, so that two processes end at about the same time.
        output: folder of all runs.
    """

    configs: Mapping[str, str]
    output: Path

    def train(
        self, seeds: Sequence[int], iterations: int | None, say: Callable[[str], None]
    ) -> dict[int, dict[str, Run]]:
        """Trains with all seeds; returns the finished runs by seed and name.

        With several seeds the student is also trained alone for as long as the distilled run took.
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
                "training the student alone again, for as long as the distilled run took:"
                f" {longer[seeds[0]].iterations} iterations"
            )
            run_all(list(longer.values()), say=say)
            for seed, run in longer.items():
                runs[seed][LONGER] = run
        return runs

    def _same_time(self, seed: int, group: Mapping[str, Run]) -> Run:
        """The student alone, with as many iterations as the distilled run's time allows."""
        plain, distilled = (group[name].evaluations()[-1][1][0] for name in ("alone", "distilled"))
        iterations = round(group["alone"].iterations * distilled / plain)
        return self._run(LONGER, "alone", seed, iterations)

    def _run(self, name: str, config: str, seed: int, iterations: int) -> Run:
        folder = self.output / f"seed{seed}" / name
        return seeded_run(NAMES[name], self.configs[config], folder, seed, iterations)


def seeded_run(
    name: str, config: str, folder: Path, seed: int, iterations: int, changes: Sequence[str] = ()
) -> Run:
    """A run with this seed and these changes of its config."""
    name += f" (seed {seed})" if seed else ""
    return Run(name, config, folder, iterations, [f"train.seed={seed}", *changes])


def shipped_teacher() -> torch.nn.Module:
    """The bundled teacher, with its weights."""
    node = load_config(str(ROOT / "configs/quickstart/distilled.py")).model.teacher.detector
    return load_pretrained(build(node.model), node.checkpoint)


def student(run: Run) -> torch.nn.Module:
    """The student of a finished run, loaded as a plain detector."""
    detector = Trainer.build_detector(load_config(str(ROOT / run.config), run.overrides))
    return load_pretrained(detector, str(run.checkpoint))


def scores(
    detector: torch.nn.Module,
    metrics: Sequence[str] = METRICS,
    config: str = "configs/quickstart/alone.py",
    test: Sequence[str] = ("dataloader.test.dataset.names=quickstart_test",),
) -> dict[str, float]:
    """These metrics of COCO, in percent, on the test images, on the device of the training.

    Args:
        config: whose loader and evaluator are used.
        test: the overrides that select the test images.
    """
    cfg = load_config(str(ROOT / config), test)
    before = next(detector.parameters()).device
    detector.eval().to(resolve_device(cfg.train.device))
    with contextlib.redirect_stdout(io.StringIO()):
        found = Trainer.test(cfg, detector)["bbox"]
    detector.to(before)  # pictures are drawn there
    return {name: found[name] for name in metrics}


def outcome(run: Run, detector: torch.nn.Module) -> dict:
    """The figures of a finished run and its student: those of :func:`scores`, ``val`` (AP on the
    validation images), ``iterations``, ``seconds`` of training steps, ``parameters``."""
    iterations, (seconds, val) = run.evaluations()[-1]
    return {
        **scores(detector),
        "val": val,
        "iterations": iterations,
        "seconds": round(seconds, 1),
        "parameters": parameters(detector),
    }


def parameters(detector: torch.nn.Module) -> int:
    """The number of parameters, frozen ones included."""
    return sum(p.numel() for p in detector.parameters())


def result(seed: int, teacher: float, outcomes: Mapping[str, Mapping]) -> dict:
    """The part of one seed in a results.json: AP by run, and other figures by kind and run."""
    kinds = ("iterations", "seconds", "val")
    return {
        "teacher": teacher,
        **{name: found["AP"] for name, found in outcomes.items()},
        "seed": seed,
        **{kind: {name: found[kind] for name, found in outcomes.items()} for kind in kinds},
    }


def write_results(output: Path, results: Sequence[dict]) -> None:
    """Writes the results.json of each seed, and one for all: the first seed's, which also lists all
    seeds if there are several."""
    for one in results:
        write(output / f"seed{one['seed']}" / "results.json", one)
    write(output / "results.json", results[0] | ({"seeds": results} if len(results) > 1 else {}))


def write(path: Path, value: dict) -> None:
    """Writes a file of indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_lines(path: Path, lines: Sequence[dict]) -> None:
    """Writes a JSONL file: one JSON dictionary per line."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path: Path, wanted: Sequence[str]) -> list[dict]:
    """The dictionaries of a results.jsonl.

    Raises:
        UsageError: the file does not exist, is empty, or has a line without the ``wanted`` keys.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}: give the results.jsonl of an earlier run.")
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not isinstance(line, dict) or set(wanted) - line.keys():
            raise UsageError(
                f"{path}, line {number}, is no result of this program, which has the keys"
                f" {', '.join(sorted(wanted))}: give a file that this program wrote."
            )
        lines.append(line)
    if not lines:
        raise UsageError(f"{path} is empty: give a file that this program wrote.")
    return lines


def spread(values: Sequence[float], sign: str = "") -> str:
    """The mean and, of several values, the sample standard deviation."""
    mean = f"{statistics.mean(values):{sign}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


CELLS = {
    "parameters": lambda values: f"{values[0] / 1e6:.2f} M",
    "gain": lambda values: spread(values, "+"),
    "iterations": lambda values: f"{statistics.mean(values):.0f}",
    "seconds": lambda values: f"{statistics.mean(values):.0f}",
}


def detector_table(
    columns: Sequence[str], rows: Mapping[str, Mapping[str, Sequence[float]]]
) -> str:
    """A Markdown table, one row per detector: ``rows`` has the figures of each title by column, as
    a list with one value per seed. A cell is empty where there is no figure."""
    cells = [["", *columns]]
    for title, figures in rows.items():
        row = [CELLS.get(c, spread)(figures[c]) if figures.get(c) else "" for c in columns]
        cells.append([title, *row])
    return markdown(cells)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is the header."""
    lines = ["|" + "".join(f" {cell} |" if cell else " |" for cell in row) for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join(lines)
