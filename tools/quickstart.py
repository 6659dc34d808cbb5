"""See distillation pay on a laptop: a large teacher, a few labels, a small student.

Trains the student alone on 300 labelled images, the same student distilled on the same images, and
distilled with images without labels in half of each batch: same initial weights, same order of the
labelled images, same iterations. Ends with a table, pictures and results.json.
"""

import argparse
import contextlib
import io
import json
import statistics
import time
from pathlib import Path

import quiet  # noqa: F401  (before what warns)
import torch
from quickstart_pictures import draw_pictures
from training_runs import ROOT, Run, one_sentence, run_all, shown

from kddetr.checkpoint import load_pretrained
from kddetr.data import make_quickstart_data, quickstart_root
from kddetr.engine import Trainer, build, load_config

LONGER = "alone_same_time"
NAMES = {
    "alone": "student alone",
    LONGER: "student alone, distilled run's time",
    "distilled": "distilled",
    "distilled_unlabeled": "distilled + unlabelled",
}


def main() -> None:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first run (default 0)")
    parser.add_argument(
        "--seeds",
        type=positive,
        default=1,
        help="how many seeds; more than one also gives the student alone the distilled run's time",
    )
    parser.add_argument("--iterations", type=positive, default=None, help="default: the configs'")
    parser.add_argument("--output", type=Path, default=None, help="default: output/quickstart")
    args = parser.parse_args()
    output = args.output or ROOT / "output" / "quickstart"
    torch.set_num_threads(1)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    say("making the data: handwritten digits on photographs")
    make_quickstart_data(quickstart_root(), progress=False)
    iterations = args.iterations or _config("alone").train.max_iter
    seeds = range(args.seed, args.seed + args.seeds)
    results = []
    runs = {seed: _runs(output, seed, iterations) for seed in seeds}
    say(f"training 3 students for {iterations} iterations, seeds {list(seeds)}")
    run_all([run for group in runs.values() for run in group.values()], say=say)
    if args.seeds > 1:
        longer = {seed: _same_time(output, seed, group) for seed, group in runs.items()}
        say(
            "the student alone again, in the time that its distilled twin took:"
            f" {longer[seeds[0]].iterations} iterations"
        )
        run_all(list(longer.values()), say=say)
        for seed, run in longer.items():
            runs[seed][LONGER] = run
    say("evaluating on the test images, which nothing was chosen on")
    teacher, teacher_ap = _teacher()
    for seed, group in runs.items():
        results.append(_result(seed, group, teacher_ap))
        write(output / f"seed{seed}" / "results.json", results[-1])
    write(output / "results.json", results[0] | ({"seeds": results} if args.seeds > 1 else {}))
    pictures = draw_pictures(output, runs[seeds[0]], teacher, NAMES)
    print("\n" + table(results))
    print(
        "\nAP in percent on 400 test images. The teacher has seen labels for all 4,000 training"
        "\nimages, the students for 300: the case of a big detector and few labels of one's own."
    )
    for path in pictures:
        print(f"picture: {shown(path)}")
    say(f"done; the figures are in {shown(output / 'results.json')}")


def positive(text: str) -> int:
    """A number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def _config(name: str):
    return load_config(str(ROOT / "configs" / "quickstart" / f"{name}.py"))


def _runs(output: Path, seed: int, iterations: int) -> dict[str, Run]:
    """The slowest first, so that two processes end together."""
    order = ("distilled_unlabeled", "distilled", "alone")
    return {
        name: Run(
            name=NAMES[name] + (f" (seed {seed})" if seed else ""),
            config=f"configs/quickstart/{name}.py",
            output=output / f"seed{seed}" / name,
            iterations=iterations,
            overrides=[f"train.seed={seed}"],
        )
        for name in order
    }


def _same_time(output: Path, seed: int, group: dict[str, Run]) -> Run:
    """The student alone with as many iterations as fit into the distilled run's seconds."""
    plain, distilled = (group[name].evaluations()[-1][1][0] for name in ("alone", "distilled"))
    iterations = round(group["alone"].iterations * distilled / plain)
    return Run(
        name=f"{NAMES[LONGER]} (seed {seed})",
        config="configs/quickstart/alone.py",
        output=output / f"seed{seed}" / LONGER,
        iterations=iterations,
        overrides=[f"train.seed={seed}"],
    )


def _teacher() -> tuple[torch.nn.Module, float]:
    """The shipped teacher and its AP on the test images."""
    cfg = _config("distilled")
    node = cfg.model.teacher.detector
    teacher = load_pretrained(build(node.model), node.checkpoint)
    return teacher, test_ap(teacher)


def test_ap(detector: torch.nn.Module) -> float:
    """AP in percent on the test images."""
    cfg = _config("alone")
    cfg.dataloader.test.dataset.names = "quickstart_test"
    with contextlib.redirect_stdout(io.StringIO()):
        return Trainer.test(cfg, detector.eval())["bbox"]["AP"]


def student(run: Run) -> torch.nn.Module:
    """A finished run's student: a plain detector from a plain detector's file."""
    detector = Trainer.build_detector(load_config(str(ROOT / run.config)))
    return load_pretrained(detector, str(run.checkpoint))


def _result(seed: int, group: dict[str, Run], teacher_ap: float) -> dict:
    ends = {name: run.evaluations()[-1] for name, run in group.items()}
    return {
        "teacher": teacher_ap,
        **{name: test_ap(student(run)) for name, run in group.items()},
        "seed": seed,
        "iterations": {name: end[0] for name, end in ends.items()},
        "seconds": {name: round(end[1][0], 1) for name, end in ends.items()},
        "val": {name: end[1][1] for name, end in ends.items()},
    }


def table(results: list[dict]) -> str:
    """Markdown: one row a detector; with several seeds mean and sample standard deviation."""
    rows = ["| | AP | gain | iterations | seconds |", "| --- | --- | --- | --- | --- |"]
    rows.append(f"| teacher | {results[0]['teacher']:.1f} | | | |")
    for key, name in NAMES.items():
        if key not in results[0]:
            continue
        values = [r[key] for r in results]
        gains = [r[key] - r["alone"] for r in results]
        rows.append(
            f"| {name} | {spread(values)} | {spread(gains, '+') if key != 'alone' else ''}"
            f" | {statistics.mean(r['iterations'][key] for r in results):.0f}"
            f" | {statistics.mean(r['seconds'][key] for r in results):.0f} |"
        )
    return "\n".join(rows)


def spread(values: list[float], sign: str = "") -> str:
    """Mean, and of several the sample standard deviation."""
    mean = f"{statistics.mean(values):{sign}.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def write(path: Path, value: dict) -> None:
    """As indented JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    with one_sentence():
        main()
