#!/usr/bin/env python
r"""Write a detector as a file that runs without this project.

    python tools/export.py --weights output/dino_r18/model_final.pth --format onnx

The config is config.yaml beside the weights, or --config-file. The file is checked against PyTorch
on images of two sizes, of which one is padded; the largest difference is printed, with the time
that an image takes in both, and the command that runs the file. See docs/export.md.
"""

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kddetr

# isort: split
import torch
from detectron2.data import transforms as T
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from kddetr.checkpoint import Checkpointer, local_file
from kddetr.detectors import DetectionTransformer
from kddetr.detectors.stock.base import StockDetector
from kddetr.engine import Trainer, build, load_config, require_sections
from kddetr.errors import ConfigError, StorageError, UsageError, exit_on_user_error
from kddetr.export import (
    ENDINGS,
    FORMATS,
    DetectionGraph,
    StockGraph,
    compare,
    export_file,
    latencies,
    open_file,
)

DEFAULT_SIZE = (640, 640)
RUNS_IT = {
    "onnx": "python examples/onnx_detect.py {file} IMAGE",
    "torch": "torch.export.load({file!r}).module()(images, sizes)  # in Python",
    "torchscript": "torch.jit.load({file!r})(images, sizes)  # in Python",
}


def export(args: argparse.Namespace) -> None:
    """Write the file, check it and print what was found."""
    cfg = load_config(config_of(args), args.overrides)
    require_sections(cfg, "model")
    detector = Trainer.build_detector(cfg).eval()
    loaded = Checkpointer(detector).load(args.weights, strict=True)
    graph = graph_of(detector, raw=args.raw)
    classes = list(loaded.get("classes") or cfg.train.get("classes") or ())
    size = args.image_size or expected_size(cfg)
    file = Path(args.output or Path(Path(local_file(args.weights)).name).with_suffix(""))
    if not args.output:
        file = file.with_suffix(ENDINGS[args.format])
    check_target(file)
    card = card_of(detector, classes, resize_of(cfg), size)
    padded, other = batches(graph, size)
    export_file(graph, file, args.format, padded, card, sampling=args.sampling)
    report(graph, file, args, (padded, other))


def config_of(args: argparse.Namespace) -> str:
    """The config file: the one that was named, or config.yaml beside the weights.

    Raises:
        ConfigError: there is none.
    """
    beside = Path(local_file(args.weights)).parent / "config.yaml"
    if args.config_file or beside.is_file():
        return args.config_file or str(beside)
    raise ConfigError(
        f"There is no config.yaml beside {args.weights}: name the config that builds this detector"
        " with --config-file."
    )


def graph_of(detector: torch.nn.Module, *, raw: bool) -> DetectionGraph | StockGraph:
    """The detector as a function of tensors, without gradients.

    Raises:
        UsageError: it is of another kind.
    """
    detector.requires_grad_(False)
    if isinstance(detector, DetectionTransformer):
        return DetectionGraph(detector, raw=raw).eval()
    if isinstance(detector, StockDetector):
        return StockGraph(detector).eval()
    raise UsageError(
        f"A {type(detector).__name__} cannot be exported: take a detection transformer of"
        " kddetr.detectors, or a model of Detectron2."
    )


def resize_of(cfg: DictConfig) -> dict[str, int] | None:
    """How the config resizes test images: shortest edge and longest edge at most; None: not."""
    steps = OmegaConf.select(cfg, "dataloader.test.mapper.augmentations") or []
    for step in map(build, steps):
        if isinstance(step, T.ResizeShortestEdge):
            return {"shortest_edge": int(step.short_edge_length[0]), "max_size": int(step.max_size)}
    return None


def expected_size(cfg: DictConfig) -> tuple[int, int]:
    """Height and width of the images for the check."""
    resize = resize_of(cfg)
    if resize is None:
        return DEFAULT_SIZE
    return resize["shortest_edge"], min(resize["max_size"], 2 * resize["shortest_edge"])


def card_of(
    detector: torch.nn.Module, classes: Sequence[str], resize: Any, size: Sequence[int]
) -> dict[str, str]:
    """What is written into the file beside the graph, as JSON by name."""
    owner = getattr(detector, "stock", detector)
    card = {
        "classes": classes or [str(number) for number in range(detector.num_classes)],
        "resize": resize,
        "image_size": list(size),
        "size_divisor": getattr(getattr(owner, "backbone", None), "divisor", 1),
        "pixel_mean": owner.pixel_mean.flatten().tolist(),
        "pixel_std": owner.pixel_std.flatten().tolist(),
        "kddetr": kddetr.__version__,
    }
    return {name: json.dumps(value) for name, value in card.items()}


def batches(
    graph: DetectionGraph | StockGraph, size: Sequence[int]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Random images: a batch of two of which one is padded, and one image of another size; for a
    model of Detectron2 one image each.
    """
    generator = torch.Generator().manual_seed(0)

    def images(count: int, height: int, width: int) -> Tensor:
        return torch.rand(count, 3, height, width, generator=generator) * 255

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


def report(
    graph: DetectionGraph | StockGraph,
    file: Path,
    args: argparse.Namespace,
    inputs: Sequence[tuple[Tensor, ...]],
) -> None:
    """Print the difference from PyTorch, the latencies, the size and the command that runs it."""
    run, card = open_file(file, args.format)
    with torch.inference_mode():
        for given in inputs:
            side = max(given[0].shape[-2:])
            found = compare(run(*given), graph(*given), side)
            shape = " x ".join(map(str, given[0].shape))
            more = ""
            if found.apart:
                more = (
                    f"; {found.apart} detections are more than {found.tolerance:g} apart, the best"
                    f" with a score of {found.best_apart:.3f} (see docs/export.md)"
                )
            print(f"difference from PyTorch, {shape}: {found.largest:.1e}{more}")
        one = inputs[1]
        runs = {"PyTorch": graph, args.format: run}
        times = latencies(runs, one, args.repetitions)
    for name, seconds in times.items():
        shape = " x ".join(map(str, one[0].shape[-2:]))
        print(f"one image of {shape} in {name}: {seconds * 1e3:.1f} ms")
    print(f"threads: {torch.get_num_threads()}; classes: {len(json.loads(card['classes']))}")
    print(f"written: {file}, {os.path.getsize(file) / 1e6:.1f} MB")
    print(f"run it: {RUNS_IT[args.format].format(file=str(file))}")


def check_target(file: Path) -> None:
    """Refuse a file whose folder does not exist."""
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
    add("--format", required=True, choices=tuple(FORMATS))
    add("--config-file", metavar="CONFIG", help="default: config.yaml beside the weights")
    add("--output", metavar="FILE", help="default: the name of the weights, in this folder")
    size = "of the check (default: as the config resizes test images, else 640 640)"
    add("--image-size", type=side, nargs=2, metavar=("H", "W"), help=size)
    sampling = "deformable attention by the operator GridSample (default), or by gathers of rows"
    add("--sampling", choices=("grid_sample", "gather"), default="grid_sample", help=sampling)
    add("--raw", action="store_true", help="also return the logits and boxes of all queries")
    add("--repetitions", type=positive, default=5, help="timed calls (default 5)")
    add("overrides", nargs="*", help="key=value of the config")
    args = parser.parse_args(argv)
    with exit_on_user_error():
        export(args)


if __name__ == "__main__":
    main()
