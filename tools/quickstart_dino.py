"""DINO on the quickstart's data: a larger DINO teaches a smaller one, and DAB-DETRs.

Trains the teacher on all 4,000 labelled images, then each student alone and distilled on 300 of
them: same initial weights, same order of the images, same iterations. Ends with a table and
results.json. About 25 minutes on one quiet core for the teacher, and 15 to 20 on two for a seed.
"""

import argparse
import statistics
import time
from pathlib import Path

import quiet  # noqa: F401  (before what warns)
import torch
from quickstart import positive, spread, student, test_ap, write
from training_runs import ROOT, Run, one_sentence, run_all, shown

from kddetr.data import make_quickstart_data, quickstart_root
from kddetr.engine import load_config

CONFIGS = "configs/quickstart"
TEACHER = f"{CONFIGS}/dino_teacher.py"
# Name of a run: what it is called, its config, the run its gain is measured from.
STUDENTS = {
    "dino_alone": ("DINO alone", "dino_alone", None),
    "dino_distilled": ("DINO from DINO", "dino_distilled", "dino_alone"),
    "anchors_alone": ("DAB-DETR, deformable attention, alone", "alone", None),
    "anchors_distilled": ("the same from DINO", "anchors_distilled_from_dino", "anchors_alone"),
    "dab_alone": ("DAB-DETR, dense attention, alone", "dab_alone", None),
    "dab_distilled": ("the same, from DINO", "dab_distilled_from_dino", "dab_alone"),
}
# Dense attention learns next to nothing in this time, alone or distilled: one seed shows it.
ONCE = ("dab_alone", "dab_distilled")


def main() -> None:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first run (default 0)")
    parser.add_argument("--seeds", type=positive, default=1, help="how many (default 1)")
    parser.add_argument("--iterations", type=positive, default=None, help="default: the configs'")
    parser.add_argument("--output", type=Path, default=None, help="default: output/quickstart_dino")
    args = parser.parse_args()
    output = (args.output or ROOT / "output" / "quickstart_dino").resolve()
    torch.set_num_threads(1)
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", flush=True)

    say("making the data: handwritten digits on photographs")
    make_quickstart_data(quickstart_root(), progress=False)
    say("training the teacher")
    schedule = load_config(str(ROOT / TEACHER)).train
    teacher = Run("teacher", TEACHER, output / "teacher", args.iterations or schedule.max_iter)
    run_all([teacher], say=say)
    seeds = range(args.seed, args.seed + args.seeds)
    runs = {seed: _runs(output, seed, args.iterations, teacher) for seed in seeds}
    for seed in seeds[1:]:
        runs[seed] = {name: run for name, run in runs[seed].items() if name not in ONCE}
    say(f"training {len(STUDENTS)} students, seeds {list(seeds)}")
    waiting = [(name in ONCE, run) for group in runs.values() for name, run in group.items()]
    run_all([run for _, run in sorted(waiting, key=lambda pair: pair[0])], say=say)
    say("evaluating on the test images, which nothing was chosen on")
    results = {
        "teacher": _result(teacher),
        "seeds": [
            {"seed": seed} | {name: _result(run) for name, run in group.items()}
            for seed, group in runs.items()
        ],
    }
    write(output / "results.json", results)
    print("\n" + table(results))
    print("\nAP in percent on 400 test images. The teacher has seen labels for all 4,000 training")
    print("images, the students for 300.")
    say(f"done; the figures are in {shown(output / 'results.json')}")


def _runs(output: Path, seed: int, iterations: int | None, teacher: Run) -> dict[str, Run]:
    """The slower ones first, so that two processes end together."""
    order = sorted(STUDENTS, key=lambda name: STUDENTS[name][2] is None)
    runs = {}
    for name in order:
        title, config, origin = STUDENTS[name]
        path = f"{CONFIGS}/{config}.py"
        overrides = [f"train.seed={seed}"]
        if origin:
            overrides.append(f"model.teacher.detector.checkpoint={teacher.checkpoint}")
        runs[name] = Run(
            name=title + (f" (seed {seed})" if seed else ""),
            config=path,
            output=output / f"seed{seed}" / name,
            iterations=iterations or load_config(str(ROOT / path)).train.max_iter,
            overrides=overrides,
        )
    return runs


def _result(run: Run) -> dict:
    """AP on the test images, iterations, seconds of training steps, AP on the validation images."""
    iterations, (seconds, val) = run.evaluations()[-1]
    detector = student(run)
    return {
        "test": test_ap(detector),
        "val": val,
        "iterations": iterations,
        "seconds": round(seconds, 1),
        "parameters": sum(p.numel() for p in detector.parameters()),
    }


def table(results: dict) -> str:
    """Markdown: one row a detector; with several seeds mean and sample standard deviation."""
    rows = ["| | parameters | AP | gain | iterations | seconds |"]
    rows.append("| --- | --- | --- | --- | --- | --- |")
    detectors = {"teacher": ("DINO, the teacher", [results["teacher"]], None)}
    for name, (title, _, origin) in STUDENTS.items():
        seeds = [seed for seed in results["seeds"] if name in seed]
        mine = [seed[name] for seed in seeds]
        gains = origin and [seed[name]["test"] - seed[origin]["test"] for seed in seeds]
        detectors[name] = (title, mine, gains)
    for title, mine, gains in detectors.values():
        rows.append(
            f"| {title} | {mine[0]['parameters'] / 1e6:.2f} M"
            f" | {spread([r['test'] for r in mine])} | {spread(gains, '+') if gains else ''}"
            f" | {mine[0]['iterations']} | {statistics.mean(r['seconds'] for r in mine):.0f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    with one_sentence():
        main()
