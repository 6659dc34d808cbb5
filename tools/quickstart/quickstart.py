"""Distillation on a laptop: a large teacher, few labels, a small student.

Trains the student alone on 300 labelled images, distilled on the same images, and distilled with
unlabelled images in half of each batch: same initial weights, same order of the labelled images,
same number of iterations. Writes a table, pictures and results.json. The first pictures, of the
teacher, are there before the training starts.
"""

from comparison import (
    NAMES,
    SEVERAL,
    Comparison,
    arguments,
    begin,
    detector_table,
    outcome,
    result,
    scores,
    shipped_teacher,
    student,
    write_results,
)
from pictures import draw_students, draw_teacher
from runs import program, shown

# See Comparison.configs for the order.
CONFIGS = {
    name: f"configs/quickstart/{name}.py" for name in ("distilled_unlabeled", "distilled", "alone")
}


def main() -> None:
    """Parse the command line, train, report."""
    args = arguments(__doc__, output="output/quickstart", seeds=SEVERAL).parse_args()
    say = begin()
    teacher = shipped_teacher()
    pictures = draw_teacher(args.output, teacher)
    say("the teacher's detections and distillation points: " + " ".join(map(shown, pictures)))
    seeds = range(args.seed, args.seed + args.seeds)
    runs = Comparison(CONFIGS, args.output).train(seeds, args.iterations, say)
    say("evaluating on the 400 test images")
    ap = scores(teacher)["AP"]
    results = [
        result(seed, ap, {name: outcome(run, student(run)) for name, run in group.items()})
        for seed, group in runs.items()
    ]
    write_results(args.output, results)
    pictures += draw_students(args.output, runs[args.seed], teacher, NAMES)
    print("\n" + table(results))
    print(
        "\nAP in percent on 400 test images. The teacher has seen labels for all 4,000 training"
        "\nimages, the students for 300: a big detector, and few labels of one's own."
    )
    for path in pictures:
        print(f"picture: {shown(path)}")
    say(f"done; the figures are in {shown(args.output / 'results.json')}")


def table(results: list[dict]) -> str:
    """A Markdown table, one row per detector, with :func:`comparison.spread` over the seeds."""
    rows = {"teacher": {"AP": [results[0]["teacher"]]}}
    for key, name in NAMES.items():
        if key not in results[0]:
            continue
        rows[name] = {
            "AP": [r[key] for r in results],
            "gain": [r[key] - r["alone"] for r in results] if key != "alone" else [],
            "iterations": [r["iterations"][key] for r in results],
            "seconds": [r["seconds"][key] for r in results],
        }
    return detector_table(("AP", "gain", "iterations", "seconds"), rows)


if __name__ == "__main__":
    with program():
        main()
