r"""Run a teacher over images once, and record its answers for trainings without its cost.

    python tools/record_teacher.py --config-file configs/quickstart/distilled.py --output record

records the teacher of a distillation config, or the detector of any other config, for all images
that the config names for training, with or without labels. --images DIR records it for a folder of
images instead. Any other detector is recorded from its detections in COCO's results format:

    python tools/record_teacher.py --results results.json --annotations train.json \
        --images DIR --output record

A run that was stopped goes on when it is started again. A training uses the record with
model.teacher=L(RecordedTeacher)(path="record"). With --pseudo-labels FILE the confident answers for
the images without labels are also written as annotations in COCO's format; for that, a finished
record needs nothing but --output.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import kddetr  # first: it filters the warnings of libraries

# isort: split
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kddetr.checkpoint import atomic_write, load_pretrained, local_file
from kddetr.data import (
    DetectionMapper,
    class_names,
    load_coco_format,
    load_image_folder,
    registered_classes,
)
from kddetr.data.coco import read_coco_json
from kddetr.engine import build, load_config, require_sections, resolve_device
from kddetr.engine.checks import labeled_names
from kddetr.engine.config.calls import target_name, walk
from kddetr.errors import DatasetError, UsageError, exit_on_user_error
from kddetr.structures import QueryableDetector
from kddetr.teachers import CachedEncoder, Vocabulary, trained_classes
from kddetr.teachers.coco_results import UNSEEN, check_places, read_results
from kddetr.teachers.pseudo_labels import pseudo_labels
from kddetr.teachers.record import Record
from kddetr.teachers.recording import (
    AnswerSource,
    DetectorSource,
    ResultsSource,
    content_width,
    make_card,
    write_record,
)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, record, and write pseudo-labels; an error of the user ends in exit
    code 2.
    """
    args = parse(argv)
    with exit_on_user_error():
        if args.config_file or args.results:
            record(args)
        elif not args.pseudo_labels:
            raise UsageError("Name a teacher with --config-file or --results.")
        finished = Record(args.output)
        report(finished)
        if args.pseudo_labels:
            write_pseudo_labels(finished, args.pseudo_labels, args.threshold)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="folder of the record")
    add("--config-file", help="config of the teacher, or of a distillation that has one")
    add("--weights", help="checkpoint of a detector's config (default train.init_checkpoint)")
    add("--results", metavar="FILE", help="detections in COCO's results format")
    add("--images", metavar="DIR", help="folder of the images")
    add("--annotations", metavar="FILE", help="COCO file of the images of --results")
    classes = "COCO file with the categories, or their names in order: cat,dog for ids 1 and 2"
    add("--categories", metavar="FILE|NAMES", help=classes)
    positive, whole = at_least(1), at_least(0)
    add("--keep", type=positive, default=100, help="answers kept of an image (default 100)")
    add("--top-classes", type=positive, default=10, help="classes kept of an answer (default 10)")
    add("--images-per-shard", type=positive, default=500, help="images in a file (default 500)")
    add("--batch-size", type=positive, default=8, help="images at once (default 8)")
    add("--num-workers", type=whole, default=0, help="loading processes (default 0)")
    add("--pseudo-labels", metavar="FILE", help="also write hard labels in COCO's format")
    add("--threshold", type=float, default=0.5, help="their least probability (default 0.5)")
    add("overrides", nargs="*", help="key=value of the config")
    args = parser.parse_args(argv)
    if args.config_file and args.results:
        parser.error("give --config-file or --results, and not both")
    if not args.output:
        parser.error("--output is empty: name a folder")
    if args.config_file or args.results:
        main_flag = "--results" if args.results else "--config-file"
        for name in ("weights", "overrides") if args.results else ("annotations",):
            if given := getattr(args, name):
                words = f"--{name} {given}" if isinstance(given, str) else " ".join(given)
                parser.error(f"{words} does not go with {main_flag}")
    if not 0 <= args.threshold <= 1:
        parser.error(f"--threshold {args.threshold:g} is not from 0 to 1")
    return args


def at_least(low: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number of at least ``low``."""

    def parse_number(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least {low}")
        return int(text)

    return parse_number


def record(args: argparse.Namespace) -> None:
    """Make the record, or what is missing of it."""
    settings = {"keep": args.keep, "top_classes": args.top_classes}
    make = of_config if args.config_file else of_results
    source, images, about = make(args, settings)
    settings["images_per_shard"] = args.images_per_shard
    made_by = {"version": kddetr.__version__, "config": args.config_file}
    made_by["overrides"] = list(args.overrides)
    card = make_card(images=images, settings=settings, made_by=made_by, **about)
    for line in write_record(args.output, card, images, source):
        print(line, flush=True)


def of_config(
    args: argparse.Namespace, settings: dict[str, int]
) -> tuple[AnswerSource, list[dict], dict[str, Any]]:
    """The answers of a config's teacher, the images, and what the card says of them."""
    cfg = load_config(args.config_file, args.overrides)
    require_sections(cfg, "model")
    node, key = (cfg.model.teacher, "model.teacher") if "teacher" in cfg.model else (cfg.model, "")
    files = [v for path, v in walk(plain(node)) if path.endswith("checkpoint") and v]
    if key and args.weights:
        raise UsageError(
            "--weights is for the config of a detector: for a distillation set the checkpoint of"
            " the teacher in its config, such as model.teacher.checkpoint=FILE."
        )
    if not key:
        files = [args.weights or cfg.train.init_checkpoint]
    detector = build(node) if key else load_pretrained(build(node), files[0])
    detector = without_cache(detector)
    if not isinstance(detector, QueryableDetector):
        raise UsageError(
            f"The model of {args.config_file} is a {type(detector).__name__}, which does not answer"
            " queries: take a detector of this project, or record detections with --results."
        )
    detector.eval().to(resolve_device(cfg.train.device))
    if args.images:
        images, data = load_image_folder(image_root=args.images), args.images
    else:
        images, data = images_of(cfg), f"the training data of {args.config_file}"
    test = OmegaConf.select(cfg, "dataloader.test.mapper")
    mapper = build(test) if test else DetectionMapper(is_train=False, augmentations=[])
    loading = {"batch_size": args.batch_size, "num_workers": args.num_workers}
    source = DetectorSource(detector, mapper, **settings, **loading)
    teacher = {
        "model": plain(node),
        "checkpoints": {file: sha256(local_file(file)) for file in files},
        "images": plain(test) if test else "as they are",
    }
    about = {"teacher": teacher, "classes": classes_of(detector, cfg, args.categories)}
    return source, images, about | {"content": content_width(detector), "data": data}


def of_results(
    args: argparse.Namespace, settings: dict[str, int]
) -> tuple[AnswerSource, list[dict], dict[str, Any]]:
    """The answers that a file of detections stands for, its images, and what the card says."""
    if not (args.annotations or args.images):
        raise UsageError(
            "--results needs the images that it is about: name their folder with --images, or a"
            " COCO file that lists them with --annotations."
        )
    known, names = categories_of(args)
    detections = read_results(args.results, known)
    if args.annotations:
        root = args.images or os.path.dirname(os.path.abspath(args.annotations))
        images = load_coco_format(json_file=args.annotations, image_root=root)
    else:
        images = images_by_name(args.images, detections)
    if unknown := detections.keys() - {x["image_id"] for x in images}:
        raise DatasetError(
            f"{args.results} has detections of {len(unknown)} images that are not among the"
            f" {len(images)} images, such as {sorted(unknown, key=str)[0]!r}, while the images have"
            f" ids such as {images[0]['image_id']!r}: name the images that the detector has seen,"
            " or correct the ids."
        )
    for warning in check_places(detections, images, args.results):
        print(f"warning: {warning}", flush=True)
    assumed = f"a class that was not detected at a box has the probability {UNSEEN:g}"
    teacher = {"results": args.results, "sha256": sha256(args.results), "assumed": assumed}
    about = {"teacher": teacher, "classes": names, "content": 0}
    about["data"] = args.annotations or args.images
    return ResultsSource(detections, known, **settings), images, about


def images_by_name(folder: str, detections: dict[Any, list[dict]]) -> list[dict]:
    """The images of a folder, whose ids are the names of their files.

    Raises:
        DatasetError: detections belong to two images.
    """
    images = [x | {"image_id": id_of(x, detections)} for x in load_image_folder(image_root=folder)]
    first: dict[Any, str] = {}
    for x in images:
        other = first.setdefault(x["image_id"], x["file_name"])
        if other != x["file_name"] and x["image_id"] in detections:
            raise DatasetError(
                f"{other} and {x['file_name']} have both the image id {x['image_id']!r}: list the"
                " images and their ids in a COCO file, and name it with --annotations."
            )
    return images


def id_of(x: dict, detections: dict[Any, list[dict]]) -> Any:
    """The image id of a file in a folder: its name without the suffix, as text or as a number."""
    stem = Path(x["file_name"]).stem
    return int(stem) if stem not in detections and stem.isdecimal() else stem


def categories_of(args: argparse.Namespace) -> tuple[dict[Any, int], list[str]]:
    """Category id to class, and the names of the classes."""
    named = args.categories or args.annotations
    if not named:
        raise UsageError(
            "The results have category ids, and not names: name a COCO file with the categories, or"
            " the names for the ids 1, 2, ..., with --categories."
        )
    names = names_of(named)
    if not is_file(named):
        return {i + 1: i for i in range(len(names))}, names
    ids = sorted(category["id"] for category in read_coco_json(named)["categories"])
    return {key: i for i, key in enumerate(ids)}, names


def names_of(given: str) -> list[str]:
    """The class names of a COCO file, or of a list such as ``cat,dog``."""
    if is_file(given):
        return class_names(given)
    names = [name.strip() for name in given.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise UsageError(
            f"--categories {given}: a name is empty or given twice; give each class a name of its"
            " own, or name an existing COCO file."
        )
    return names


def is_file(given: str) -> bool:
    """Whether ``--categories`` is the path of a file, and not a list of names."""
    return given.endswith(".json") or os.path.exists(os.path.expanduser(given))


def images_of(cfg: DictConfig) -> list[dict]:
    """The images that a config names for training, each once; the labelled ones first."""
    found: dict[str, dict] = {}
    for part in ("dataset", "unlabeled"):
        node = OmegaConf.select(cfg, f"dataloader.train.{part}")
        for x in build(node) if node is not None else ():
            found.setdefault(os.path.normpath(x["file_name"]), x)
    if not found:
        raise UsageError("The config names no image for training: name a folder with --images.")
    return list(found.values())


def classes_of(detector: nn.Module, cfg: DictConfig, given: str | None) -> Sequence[str]:
    """The names of a detector's classes: those given, those of its Vocabulary or its file, or those
    of the labelled training data.
    """
    inside = detector
    while not isinstance(inside, Vocabulary) and hasattr(inside, "detector"):
        inside = inside.detector
    if isinstance(inside, Vocabulary):
        names = inside.wanted
    elif given:
        names = names_of(given)
    else:
        names = trained_classes(detector)
        for name in () if names else labeled_names(cfg):
            names = registered_classes(name)
    if len(names) != detector.num_classes:
        raise UsageError(
            f"The teacher has {detector.num_classes} classes, and {len(names)} names are known for"
            " them: give their names with --categories, a COCO file or a list such as cat,dog."
        )
    return names


def without_cache(detector: nn.Module) -> nn.Module:
    """A teacher without CachedEncoder, which would keep all images in memory."""
    if isinstance(detector, CachedEncoder):
        return without_cache(detector.detector)
    if isinstance(getattr(detector, "detector", None), nn.Module):
        detector.detector = without_cache(detector.detector)
    return detector


def plain(node: DictConfig) -> Any:
    """A part of a config in JSON's types, with callables by their names."""
    tree = OmegaConf.to_container(node, resolve=True)
    return json.loads(json.dumps(tree, default=target_name))


def sha256(file: str) -> str:
    """The SHA-256 hash of a file."""
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        while part := stream.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def report(finished: Record) -> None:
    """Print how large a record is."""
    counts = [len(answers) for _, answers in finished]
    size = sum(file.stat().st_size for file in finished.folder.iterdir())
    print(
        f"{finished.folder}: {len(counts)} images, {sum(counts) / len(counts):.1f} answers and"
        f" {size / len(counts) / 1000:.1f} kB an image, {len(finished.classes)} classes"
    )


def write_pseudo_labels(finished: Record, file: str, threshold: float) -> None:
    """Write the pseudo-labels of a record, and print how many they are and where its images are."""
    document = pseudo_labels(finished, threshold=threshold)
    Path(file).expanduser().parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, ensure_ascii=False)
    atomic_write(os.path.expanduser(file), lambda stream: stream.write(text.encode()))
    print(
        f"{file}: {len(document['annotations'])} boxes on {len(document['images'])} images; their"
        f" image_root is {finished.card['data']['image_root']}"
    )


if __name__ == "__main__":
    sys.exit(main())
