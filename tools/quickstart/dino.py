"""DINO on the quickstart's data: a larger DINO teaches a smaller DINO and two DAB-DETRs.

Trains the teacher on all 4,000 labelled images, then each student alone and distilled on 300 of
them: same initial weights, same order of the images, same number of iterations. Writes a table and
results.json. The teacher takes about 25 minutes on one idle core, a seed 15 to 20 on two.
"""

from pathlib import Path

from comparison import arguments, begin, detector_table, outcome, seeded_run, student, write
from kddetr.engine import load_config
from runs import ROOT, Run, program, run_all, shown

CONFIGS = "configs/quickstart"
TEACHER = f"{CONFIGS}/dino_teacher.py"
# Name of a run: its title in the table, its config, the run from which its gain is measured.
STUDENTS = {
    "dino_alone": ("DINO alone", "dino_alone", None),
    "dino_distilled": ("DINO from DINO", "dino_distilled", "dino_alone"),
    "anchors_alone": ("DAB-DETR, deformable attention, alone", "alone", None),
    "anchors_distilled": ("the same from DINO", "anchors_distilled_from_dino", "anchors_alone"),
    "dab_alone": ("DAB-DETR, dense attention, alone", "dab_alone", None),
    "dab_distilled": ("the same, from DINO", "dab_distilled_from_dino", "dab_alone"),
}
# All students are trained for as many iterations as this config says.
SCHEDULE = f"{CONFIGS}/dino_alone.py"
# Dense attention learns almost nothing in this time, alone or distilled: one seed shows that.
ONCE = ("dab_alone", "dab_distilled")


def main() -> None:
    """Parse the command line, train, report."""
    args = arguments(__doc__, output="output/quickstart_dino").parse_args()
    output = args.output
    say = begin()
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
    say("evaluating on the 400 test images")
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
    """The runs of one seed, the slowest first, so that two processes end at about the same time."""
    order = sorted(STUDENTS, key=lambda name: STUDENTS[name][2] is None)
    length = iterations or load_config(str(ROOT / SCHEDULE)).train.max_iter
    runs = {}
    for name in order:
        title, config, origin = STUDENTS[name]
        path = f"{CONFIGS}/{config}.py"
        changes = [f"model.teacher.detector.checkpoint={teacher.checkpoint}"] if origin else []
        runs[name] = seeded_run(title, path, output / f"seed{seed}" / name, seed, length, changes)
    return runs


def _result(run: Run) -> dict:
    """AP on the test and validation images, iterations, seconds of training steps, parameters."""
    found = outcome(run, student(run))
    kinds = ("val", "iterations", "seconds", "parameters")
    return {"test": found["AP"]} | {kind: found[kind] for kind in kinds}


def table(results: dict) -> str:
    """A Markdown table, one row per detector, with :func:`comparison.spread` over the seeds."""
    rows = {"DINO, the teacher": _figures([results["teacher"]])}
    for name, (title, _, origin) in STUDENTS.items():
        seeds = [seed for seed in results["seeds"] if name in seed]
        rows[title] = _figures([seed[name] for seed in seeds])
        if origin:
            rows[title]["gain"] = [seed[name]["test"] - seed[origin]["test"] for seed in seeds]
    return detector_table(("parameters", "AP", "gain", "iterations", "seconds"), rows)


def _figures(runs: list[dict]) -> dict[str, list[float]]:
    kinds = ("parameters", "iterations", "seconds")
    return {"AP": [r["test"] for r in runs]} | {kind: [r[kind] for r in runs] for kind in kinds}


if __name__ == "__main__":
    with program():
        main()
