#!/usr/bin/env python
r"""Write a detector as a file that runs without this project.

    python tools/export.py --weights output/dino_r18/model_final.pth --format onnx

The weights' model card says which detector it is; for those without one, config.yaml beside them
or --config-file does. The file is checked against PyTorch
on images of two sizes, of which one is padded; the largest difference is printed, with the time
that an image takes in both, and the command that runs the file. See docs/export.md.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kddetr

# isort: split
import torch
from torch import Tensor

from kddetr.checkpoint import Checkpointer, local_file, read_card
from kddetr.detectors import DetectionTransformer, HuggingFaceDetector
from kddetr.detectors.stock.base import StockDetector
from kddetr.engine import load_config, require_sections
from kddetr.errors import ConfigError, StorageError, UsageError, exit_on_user_error
from kddetr.export import (
    ENDINGS,
    FORMATS,
    DetectionGraph,
    Run,
    SquareGraph,
    StockGraph,
    compare,
    export_file,
    latencies,
    open_file,
)
from kddetr.prediction import Source, source_of

DEFAULT_SIZE = (640, 640)
FOLDER = "transformers"  # the format that is a folder
RUNS_IT = {
    "onnx": "python examples/onnx_detect.py {file} IMAGE",
    "torch": "torch.export.load({file!r}).module()(images, sizes)  # in Python",
    "torchscript": "torch.jit.load({file!r})(images, sizes)  # in Python",
}


def export(args: argparse.Namespace) -> None:
    """Write the file, check it and print what was found."""
    source = source_for(args)
    detector = source.model.eval()
    loaded = Checkpointer(detector).load(args.weights, strict=True)
    classes = list(loaded.get("classes") or source.classes)
    if args.format == FOLDER:
        return export_folder(detector, args, classes)
    graph = graph_of(detector, raw=args.raw)
    resize = resize_of(source)
    size = args.image_size or expected_size(resize)
    ending = ENDINGS[args.format]
    file = Path(args.output or Path(local_file(args.weights)).with_suffix(ending).name)
    check_target(file, ending)
    card = card_of(source, classes, resize, size)
    padded, other = batches(graph, size)
    others = opened(args.against)
    export_file(graph, file, args.format, padded, card, sampling=args.sampling)
    run, _ = open_file(file, args.format)
    with torch.inference_mode():
        for given in (padded, other):
            print_difference(graph, run, given)
        runs = {"PyTorch": graph, args.format: run, **others}
        print_latencies(runs, other, args.repetitions)
    print(f"threads: {torch.get_num_threads()}; classes: {len(json.loads(card['classes']))}")
    print(f"written: {file}, {os.path.getsize(file) / 1e6:.1f} MB")
    print(f"run it: {RUNS_IT[args.format].format(file=str(file))}")


def export_folder(
    detector: torch.nn.Module, args: argparse.Namespace, classes: Sequence[str]
) -> None:
    """Write a real-time detector as a folder of the package transformers.

    Raises:
        UsageError: the detector is of another kind.
    """
    if not isinstance(detector, HuggingFaceDetector):
        raise UsageError(
            f"--format {FOLDER} is for detectors of the package transformers, and this is a"
            f" {type(detector).__name__}: take --format onnx."
        )
    folder = args.output or Path(local_file(args.weights)).stem
    detector.save(folder, classes)
    print(f"written: {folder}")
    print(f"run it: transformers.pipeline('object-detection', model={folder!r})(image)")


def source_for(args: argparse.Namespace) -> Source:
    """The detector: that of --config-file, or of the model card of the weights, or, with overrides
    or without a card, of config.yaml beside the weights.

    Raises:
        ConfigError: none of them is there.
    """
    config = args.config_file
    if not config and (args.overrides or read_card(args.weights) is None):
        config = str(Path(local_file(args.weights)).parent / "config.yaml")
        if not Path(config).is_file():
            raise ConfigError(
                f"There is no config.yaml beside {args.weights}: name the config that builds this"
                " detector with --config-file."
            )
    cfg = load_config(config, args.overrides) if config else None
    if cfg is not None:
        require_sections(cfg, "model")
    return source_of(args.weights, config=cfg, model=None)


def graph_of(detector: torch.nn.Module, *, raw: bool) -> DetectionGraph | SquareGraph | StockGraph:
    """The detector as a function of tensors, without gradients.

    Raises:
        UsageError: it is of another kind.
    """
    detector.requires_grad_(False)
    if isinstance(detector, DetectionTransformer):
        return DetectionGraph(detector, raw=raw).eval()
    if isinstance(detector, HuggingFaceDetector | StockDetector):
        if raw:
            raise UsageError("--raw is for detection transformers: leave it out for other models.")
        kind = StockGraph if isinstance(detector, StockDetector) else SquareGraph
        return kind(detector).eval()
    raise UsageError(
        f"A {type(detector).__name__} cannot be exported: take a detection transformer of"
        " kddetr.detectors, or a model of Detectron2."
    )


def resize_of(source: Source) -> dict[str, int] | None:
    """How images are resized in evaluation: shortest edge and longest edge at most; None: not. A
    real-time detector takes one height and width.
    """
    if isinstance(source.model, HuggingFaceDetector):
        return dict(zip(("height", "width"), source.model.image_size))
    found = source.prepared or {}
    if found.get("min_size") is None:
        return None
    return {"shortest_edge": found["min_size"], "max_size": found["max_size"]}


def expected_size(resize: Mapping[str, int] | None) -> tuple[int, int]:
    """Height and width of the images for the check."""
    if resize is None:
        return DEFAULT_SIZE
    if "height" in resize:
        return resize["height"], resize["width"]
    return resize["shortest_edge"], min(resize["max_size"], 2 * resize["shortest_edge"])


def card_of(
    source: Source, classes: Sequence[str], resize: Any, size: Sequence[int]
) -> dict[str, str]:
    """What is written into the file beside the graph, as JSON by name."""
    detector = source.model
    inside = getattr(detector, "stock", detector)
    owner = inside if hasattr(inside, "pixel_mean") else detector
    card = {
        "classes": classes or [str(number) for number in range(detector.num_classes)],
        "resize": resize,
        "image_size": list(size),
        "size_divisor": getattr(getattr(owner, "backbone", None), "divisor", 1),
        "pixel_mean": owner.pixel_mean.flatten().tolist(),
        "pixel_std": owner.pixel_std.flatten().tolist(),
        "kddetr": kddetr.__version__,
        **({"card": source.card} if source.card else {}),
    }
    return {name: json.dumps(value) for name, value in card.items()}


def batches(
    graph: DetectionGraph | SquareGraph | StockGraph, size: Sequence[int]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Random images: a batch of two of which one is padded, and one image of another size; for a
    model of Detectron2 one image each, and for a real-time detector images of its size.
    """
    generator = torch.Generator().manual_seed(0)

    def images(count: int, height: int, width: int) -> Tensor:
        return torch.rand(count, 3, height, width, generator=generator) * 255

    if isinstance(graph, SquareGraph):
        of_files = torch.tensor([[480, 640], [500, 333]])
        square = graph.detector.image_size
        return (images(2, *square), of_files), (images(1, *square), of_files[:1])
    if isinstance(graph, StockGraph):
        return (images(1, *size)[0],), (images(1, size[0] * 3 // 4, size[1])[0],)
    step = graph.size_divisor
    height, width = (-(-side // step) * step for side in size)
    shorter = -(-height * 3 // 4 // step) * step
    padded = torch.tensor([[height, width * 4 // 5], [height * 3 // 5, width]])
    return (images(2, height, width), padded), (
        images(1, shorter, width),
        torch.tensor([[shorter, width]]),
    )


def print_difference(
    graph: DetectionGraph | SquareGraph | StockGraph, run: Run, given: tuple[Tensor, ...]
) -> None:
    """Print how far the detections of an exported file are from those of PyTorch.

    With the raw outputs of a detector that ranks proposals, the difference at the same proposals
    too: what the file computes, apart from the order of nearly equal scores.
    """
    shape, side = " x ".join(map(str, given[0].shape)), max(given[0].shape[-2:])
    out = run(*given)
    found = compare(out, graph(*given), side)
    more = ""
    if found.apart:
        more = (
            f"; {found.apart} detections are more than {found.tolerance:g} apart, the best"
            f" with a score of {found.best_apart:.3f} (see docs/export.md)"
        )
    print(f"difference from PyTorch, {shape}: {found.largest:.1e}{more}")
    if isinstance(graph, DetectionGraph) and graph.raw:
        print_raw_difference(graph, out, given, side)


def print_raw_difference(
    graph: DetectionGraph, out: Sequence[Tensor], given: tuple[Tensor, ...], side: int
) -> None:
    """Print how far the raw outputs are from those of PyTorch, query by query."""
    where = "of all queries"
    if graph.ranks_proposals:
        expected, gap = graph.at_proposals(*given, out[-1])
        print(
            f"  the file's proposals are the best ones but for logits {gap:.1e} apart;"
            f" at the same proposals: {compare(out, expected, side).largest:.1e}"
        )
        where += " at the same proposals"
    else:
        expected = graph(*given)
    logits, boxes = ((out[i] - expected[i]).abs().max().item() for i in (3, 4))
    print(f"  {where}: logits {logits:.1e}, boxes {boxes:.1e}")


def print_latencies(runs: dict[str, Run], given: tuple[Tensor, ...], repetitions: int) -> None:
    """Print what one image costs in each way of running the detector."""
    shape = " x ".join(map(str, given[0].shape[-2:]))
    for name, seconds in latencies(runs, given, repetitions).items():
        print(f"one image of {shape} in {name}: {seconds * 1e3:.1f} ms")


def opened(files: Sequence[str]) -> dict[str, Run]:
    """The functions that run exported files, by the files' names.

    Raises:
        StorageError: one does not exist.
        UsageError: its name does not end as that of an exported file.
    """
    forms = {ending: form for form, ending in ENDINGS.items()}
    runs = {}
    for file in map(Path, files):
        if file.suffix not in forms:
            raise UsageError(f"{file} is no exported file: the name ends in {', '.join(forms)}.")
        if not file.is_file():
            raise StorageError(f"{file} does not exist; export it first.")
        runs[str(file)], _ = open_file(file, forms[file.suffix])
    return runs


def check_target(file: Path, ending: str) -> None:
    """Refuse a file whose folder does not exist, or whose name does not end as the format says."""
    if file.suffix != ending:
        raise UsageError(f"--output {file}: a file of this format ends in {ending}.")
    if not file.absolute().parent.is_dir():
        raise StorageError(f"The folder {file.parent} does not exist; make it first.")
    if file.is_dir():
        raise StorageError(f"{file} is a folder; name a file in it.")


def side(text: str) -> int:
    """The type of an argument that is a number of pixels."""
    if not text.isdecimal() or int(text) < 64:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 64")
    return int(text)


def positive(text: str) -> int:
    """The type of an argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and export; an error of the user ends in exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--weights", required=True, metavar="FILE", help="the checkpoint")
    add("--format", required=True, choices=(*FORMATS, FOLDER))
    add("--config-file", metavar="CONFIG", help="for weights without a model card")
    add("--output", metavar="FILE", help="default: the name of the weights, in this folder")
    size = "of the check (default: as the config resizes test images, else 640 640)"
    add("--image-size", type=side, nargs=2, metavar=("H", "W"), help=size)
    sampling = "deformable attention by the operator GridSample (default), or by gathers of rows"
    add("--sampling", choices=("grid_sample", "gather"), default="grid_sample", help=sampling)
    raw = "also return what all queries predict, and which proposals they are"
    add("--raw", action="store_true", help=raw)
    against = "exported files of the same detector, to be timed with this one"
    add("--against", metavar="FILE", nargs="+", default=[], help=against)
    add("--repetitions", type=positive, default=5, help="timed calls (default 5)")
    add("overrides", nargs="*", help="key=value of the config")
    args = parser.parse_args(argv)
    with exit_on_user_error():
        export(args)


if __name__ == "__main__":
    main()
