#!/usr/bin/env python
"""Turn a published checkpoint into one under this project's names: {"model": weights}.

Understood are DAB-DETR, Deformable DETR and DINO of their authors' projects and of detrex, DAB-DETR
and Deformable DETR of Hugging Face (safetensors, .bin or the folder), KD-DETR's student, and
ImageNet files of a ResNet or Swin. Nothing in a file is executed. Trainings and teachers take such
files directly as well; this makes one that needs no second look. Files of timm's other networks are
not converted: name them as train.init_checkpoint.
"""

import argparse
import os
import sys
from pathlib import Path

import torch

from kddetr.checkpoint import (
    CheckpointError,
    atomic_write,
    converted,
    read_checkpoint,
    weights_of,
)
from kddetr.checkpoint.coverage import grouped
from kddetr.checkpoint.published.backbone import imagenet_names
from kddetr.checkpoint.published.classes import count_classes, to_contiguous
from kddetr.checkpoint.published.convert import Converted

# What timm's networks are called inside a backbone depends on which features it yields.
_OF_TIMM = (
    "If it is an ImageNet file of one of timm's networks, it needs no conversion: name it as "
    "train.init_checkpoint of a config that has that network as its backbone."
)


def convert(source: str, target: str, *, keep_classes: bool, averaged: bool, force: bool) -> None:
    """Write the converted file and print what it was, what it is and what it needs.

    Raises:
        CheckpointError: `source` is not understood, or `target` is not to be written.
    """
    _check_target(target, force)
    data = read_checkpoint(source)
    state = weights_of(data, source, averaged=averaged)
    found = converted(state, source)
    if found is not None:
        print(f"recognised: {found}")
        state = found.state
        if found.classes == 91 and not keep_classes:
            state = to_contiguous(state)
    elif any(name.startswith("decoder.class_heads.") for name in state):
        print("recognised: a detector of this project; its weights are copied as they are")
    elif (bare := backbone(state, source)) is not None:
        print("recognised: an ImageNet backbone")
        state = bare
    else:
        raise CheckpointError(
            f"{source} is no checkpoint that is known here; its {len(state)} weights are "
            f"{grouped(list(state))}. {_OF_TIMM}"
        )
    # A view would be written with all that lies in the file beside it.
    whole = {name: value.clone() if _is_part(value) else value for name, value in state.items()}
    atomic_write(target, lambda stream: torch.save({"model": whole}, stream))
    numbers = sum(value.numel() for value in state.values())
    print(f"written: {target}, {len(state)} weights, {numbers / 1e6:.2f} million numbers", end="")
    classes = count_classes(state)
    if classes:
        print(f", {classes} classes", end="")
    print()
    if found is not None:
        print(f"config: {config(found)} with {' '.join(needed(found, state))}")
        if found.origin.note:
            print(f"note: {found.origin.note}")
    if not averaged and data.keys() & {"ema_model", "ema_state"} and "model" in data:
        print("note: the file also holds a moving average of its weights; --ema converts that")


def backbone(state: dict[str, torch.Tensor], source: str) -> dict[str, torch.Tensor] | None:
    """The weights of an ImageNet file under this project's names, None if it is none.

    Raises:
        CheckpointError: it is that of a ResNet with strange or missing parts.
    """
    try:
        return imagenet_names(state, source)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_OF_TIMM}") from error


def config(found: Converted) -> str:
    """A config that builds the detector in a file, or one to start from."""
    folder = Path(__file__).resolve().parents[1] / "configs" / "detectors"
    if (folder / f"{found.config}_{found.backbone}.py").is_file():
        return f"configs/detectors/{found.config}_{found.backbone}.py"
    return f"one like configs/detectors/{found.config}_r50.py with this backbone"


def needed(found: Converted, state: dict[str, torch.Tensor]) -> list[str]:
    """What a config says that builds the detector in a file: what its weights do not hold."""
    overrides = found.origin.settings.split()
    if (classes := count_classes(state)) != 80:
        overrides.append(f"model.num_classes={classes}")
    if found.origin.detector == "DINO":
        # One set of heads also starts a model that has one a layer: each gets a copy.
        overrides.append(f"model.shared_heads={found.heads == 1}")
    return overrides


def _check_target(target: str, force: bool) -> None:
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise CheckpointError(f"The folder {folder} does not exist; make it first.")
    if os.path.isdir(target):
        raise CheckpointError(f"{target} is a folder; name a file in it.")
    if os.path.exists(target) and not force:
        raise CheckpointError(f"{target} exists; --force overwrites it.")


def _is_part(value: torch.Tensor) -> bool:
    return value.untyped_storage().nbytes() != value.nbytes


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and convert; a mistake ends in one sentence and exit code 1."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="IN", help="the published file, or Hugging Face folder")
    parser.add_argument("target", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--keep-classes",
        action="store_true",
        help="keep 91 rows, one per COCO category id, instead of the 80 classes there are",
    )
    parser.add_argument(
        "--ema", action="store_true", help="convert the moving average that a file holds besides"
    )
    parser.add_argument("--force", action="store_true", help="overwrite OUT if it exists")
    args = parser.parse_args(argv)
    try:
        convert(
            args.source,
            args.target,
            keep_classes=args.keep_classes,
            averaged=args.ema,
            force=args.force,
        )
    except (CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
