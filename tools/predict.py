#!/usr/bin/env python
r"""Detect objects in images, folders of images and videos with a trained detector.

    python tools/predict.py --weights student.pth photo.jpg folder "frames/*.png" clip.mp4
    python tools/predict.py --weights student.pth --compare teacher.pth --json folder

The checkpoint is all that is needed: it says which detector it is of, how images are resized, and
the names of the classes. Images and videos with the detections drawn into them are written to
--output. Without --weights the small detector of handwritten digits that comes with this project
predicts. See docs/predict.md.
"""

import argparse
import time
from pathlib import Path

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
from kddetr.errors import DatasetError, UsageError, exit_on_user_error
from kddetr.prediction import CocoJson, PredictionRun, Predictor, check_targets, find_inputs
from kddetr.prediction.predictor import PRECISIONS

SHIPPED = "kddetr://quickstart_teacher.pth"
JSON_FILE = "predictions.json"


def predict(args: argparse.Namespace) -> list[str]:
    """Predict, and print what was done; returns a sentence for each file that was not read."""
    inputs, output = find_inputs(args.paths), Path(args.output)
    targets = [] if args.no_pictures else [output / one.drawn for one in inputs]
    targets += [output / JSON_FILE] if args.json else []
    check_targets(inputs, targets, force=args.force)
    if args.weights == SHIPPED:
        print("No --weights: the shipped detector, which knows handwritten digits, predicts.")
    predictors = predictors_of(args)
    first, predictor = next(iter(predictors.items()))
    coco = CocoJson(predictor.classes, first) if args.json else None
    run = PredictionRun(predictors, output, draw=not args.no_pictures, coco=coco)
    start = time.monotonic()
    run.predict(inputs)
    seconds = time.monotonic() - start
    if coco is not None:
        coco.write(output / JSON_FILE)
    images = f"{run.images} image{'' if run.images == 1 else 's'}"
    print(
        f"{run.found} objects with a score of {args.threshold:g} or more in {images}, in"
        f" {seconds:.1f} s ({run.images / seconds:.1f} images a second) on {predictor.device}"
    )
    if targets:
        print(f"written to {output}")
    return run.failed


def predictors_of(args: argparse.Namespace) -> dict[str, Predictor]:
    """The detector, and the one that it is compared with, by the names in their pictures."""
    files = [(args.weights, args.config_file)]
    files += [(args.compare, args.compare_config)] if args.compare else []
    names = [Path(file).name for file, _ in files]
    if len(set(names)) < len(names):  # model_final.pth of two runs
        names = ["/".join(Path(file).parts[-2:]) for file, _ in files]
    if len(set(names)) < len(names):
        raise UsageError("--compare names the same file as --weights: name another one.")
    options = {
        "device": args.device,
        "precision": args.precision,
        "threshold": args.threshold,
        "only": args.classes,
        "batch_size": args.batch_size,
    }
    return {
        name: Predictor(file, config=config, **options)
        for name, (file, config) in zip(names, files, strict=True)
    }


def share(text: str) -> float:
    """The type of an argument that is a number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1")
    return number


def names(text: str) -> list[str]:
    """The type of an argument that is a list of names."""
    if not (found := [name.strip() for name in text.split(",") if name.strip()]):
        raise argparse.ArgumentTypeError("it names no class; write --classes cat,dog")
    return found


def positive(text: str) -> int:
    """The type of an argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="images, videos, folders, or patterns in quotes")
    add("--weights", default=SHIPPED, metavar="FILE", help="the checkpoint, or the folder of a run")
    add("--output", default="output/predictions", metavar="FOLDER", help="default: %(default)s")
    least = "the least score of a detection that is drawn and written (default %(default)s)"
    add("--threshold", type=share, default=0.3, metavar="SCORE", help=least)
    only = "names of classes, with commas between them; others are left out"
    add("--classes", type=names, metavar="NAMES", help=only)
    add("--json", action="store_true", help=f"write the detections as COCO JSON, {JSON_FILE}")
    add("--no-pictures", action="store_true", help="write no images and no videos")
    add("--compare", metavar="FILE", help="another checkpoint, drawn beside the first one")
    add("--batch-size", type=positive, default=4, help="images in a batch (default %(default)s)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--precision", choices=PRECISIONS, default="float32")
    config = "the config that the checkpoint was trained with, for one without a model card"
    add("--config-file", metavar="CONFIG", help=config)
    add("--compare-config", metavar="CONFIG", help="the same for --compare")
    add("--force", action="store_true", help="overwrite files in the output folder")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and predict; an error of the user ends in exit code 2."""
    args = parse(argv)
    with exit_on_user_error():
        if failed := predict(args):
            raise DatasetError(
                f"All is done but what could not be read ({len(failed)}): " + " ".join(failed[:5])
            )


if __name__ == "__main__":
    main()
