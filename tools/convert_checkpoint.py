#!/usr/bin/env python
"""Turn a published checkpoint into one under this project's names: {"model": weights}.

Understood are DAB-DETR, Deformable DETR and DINO of their authors' projects and of detrex, DAB-DETR
and Deformable DETR of Hugging Face (safetensors, .bin or the folder), KD-DETR's student, and
ImageNet files of a ResNet or Swin. No code in a file is run. Trainings and teachers take such files
directly as well. Files of timm's other networks are not converted: name them as
train.init_checkpoint.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.layers import ShapeSpec
from torch import nn

from kddetr.checkpoint import (
    CheckpointError,
    adapted,
    atomic_write,
    card_in,
    converted,
    is_swin,
    read_checkpoint,
    weights_of,
)
from kddetr.checkpoint.adapt import sizes
from kddetr.checkpoint.backbones import depth_of, own_names
from kddetr.checkpoint.card import CARD
from kddetr.checkpoint.classes import CLASSES, assumed_classes, classes_in
from kddetr.checkpoint.coverage import check_kinds, compare, grouped
from kddetr.checkpoint.files import State
from kddetr.checkpoint.heads import count_classes, count_parts, rows
from kddetr.checkpoint.layouts import averages
from kddetr.checkpoint.origins import Recipe
from kddetr.checkpoint.prefixes import without_prefix
from kddetr.checkpoint.published import Converted, origin_of
from kddetr.checkpoint.settings import SETTINGS, overrides, recipes_of, stated_settings
from kddetr.detectors import dab_detr, deformable_detr, dino, resnet
from kddetr.errors import exit_on_user_error

# What timm's networks are called inside a backbone depends on which features it yields.
_OF_TIMM = (
    "If it is an ImageNet file of one of timm's networks, it needs no conversion: name it as "
    "train.init_checkpoint of a config that has that network as its backbone."
)


def convert(source: str, target: str, *, keep_classes: bool, averaged: bool, force: bool) -> None:
    """Write the converted file and print what it was, what it is and what config it needs."""
    _check_target(target, force)
    data = read_checkpoint(source)
    state = weights_of(data, source, averaged=averaged, say=note)
    state = without_prefix(state, is_known, source, say=note)
    stated, recipes = stated_settings(data), []
    found, named = converted(state, source), state
    if found is not None:
        print(f"recognised: {found}")
        recipes = recipes_of(found.origin, stated, source)
        state = fitted(state, found, recipes[0], source, keep_classes=keep_classes)
        stated = [recipe.settings for recipe in recipes]
    elif any(name.startswith("decoder.class_heads.") for name in state):
        print("recognised: a detector of this project; its weights are copied as they are")
    elif (bare := backbone(state, source)) is not None:
        print("recognised: an ImageNet backbone")
        state, stated = bare, []
    else:
        raise CheckpointError(
            f"{source} is not recognised; its {len(state)} weights are {grouped(list(state))}."
            f" {_OF_TIMM}"
        )
    names = classes_in(data, source) or assumed_classes(named, state, source)
    write(target, state, stated, names, card_in(data, source))
    if found is not None:
        print(
            f"config: {config(found, recipes[0])} with {' '.join(needed(found, recipes[0], state))}"
        )
        for other in recipes[1:]:
            name = f" named {other.mark}" if other.mark else ""
            note(f"files{name} may need {overrides(other.settings)} instead")
    if not averaged and averages(data):
        note("the file also holds a moving average of its weights; --ema converts that")


def note(words: str) -> None:
    """Print something that the user may want to know."""
    print(f"note: {words}")


def is_known(state: State) -> bool:
    """Whether the names of weights are those of a file that is converted."""
    own = any(name.startswith("decoder.class_heads.") for name in state)
    return own or origin_of(state) is not None or is_backbone(state)


def is_backbone(state: State) -> bool:
    """Whether the names of weights are those of a ResNet or Swin alone."""
    return bool({"layer1.0.conv1.weight", "stem.conv1.weight"} & state.keys()) or is_swin(state)


def fitted(
    state: State, found: Converted, recipe: Recipe, source: str, *, keep_classes: bool
) -> State:
    """A published detector's weights, refused unless they are all that a model of its sizes has."""
    classes = 80 if found.classes == 91 and not keep_classes else found.classes
    if not any(name.startswith("backbone.") for name in found.state):
        raise CheckpointError(f"{source} is {found.origin} without its backbone.")
    with torch.device("meta"):
        model = skeleton(found, recipe, classes)
    state = adapted(state, model, source, strict=True, stated=[recipe.settings])
    check_kinds(model, state, source)
    return state


class Features(nn.Module):
    """In place of a backbone that is not built: how many channels each of its features has."""

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.channels = channels

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {name: ShapeSpec(channels=count) for name, count in self.channels.items()}


def skeleton(found: Converted, recipe: Recipe, num_classes: int) -> nn.Module:
    """A model with the sizes of a published file, to compare names with."""
    state = found.state
    levels = count_parts(state, "neck.levels")
    names = ["res2", "res3", "res4", "res5"][4 - levels :]
    widths = [state[f"neck.levels.{i}.0.weight"].shape[1] for i in range(levels)]
    depth, found_sizes = depth_of(state), sizes(state)
    options = {
        "backbone": Features(dict(zip(names, widths, strict=True)))
        if depth is None
        else resnet(depth=depth, out_features=names),
        "num_classes": num_classes,
        "num_heads": 1,  # no weight's shape shows how many there are
        "feedforward_dim": rows(state, "encoder.layers.0.feed_forward.inner.weight"),
        "num_queries": found_sizes["num_queries"] or 300,
        **{key: found_sizes[key] for key in ("embed_dim", "encoder_layers", "decoder_layers")},
        **{key: recipe.settings[key] for key in ("temperature", "offset", "eps")},
    }
    if found.origin.detector == "DAB-DETR":
        return dab_detr(**options)
    options |= {"in_features": names, "extra_levels": count_parts(state, "neck.extra"), "groups": 1}
    if found.origin.detector == "DINO":
        return dino(shared_heads=found.heads == 1, **options)
    refined = "two_stage" if found.origin.encoder_head_is_last else "refine"
    return deformable_detr(variant=refined if found.heads > 1 else "plain", **options)


def backbone(state: State, source: str) -> State | None:
    """The weights of an ImageNet file under this project's names, None if it is none.

    Raises:
        CheckpointError: it is that of a ResNet with strange or missing parts.
    """
    if not is_backbone(state):
        return None
    try:
        bare = own_names(state, source)
    except CheckpointError as error:
        raise CheckpointError(f"{error} {_OF_TIMM}") from error
    if is_swin(state):
        return bare
    with torch.device("meta"):
        network = resnet(depth=depth_of(bare) or 152, out_features=["res5"])
    coverage = compare(network, bare)
    if not coverage.complete:
        raise CheckpointError(
            f"{source} looks like a ResNet, but its names differ: {coverage.describe()}. {_OF_TIMM}"
        )
    check_kinds(network, bare, source)
    return bare


def config(found: Converted, recipe: Recipe) -> str:
    """A config that builds the detector in a file, or one to start from."""
    folder = Path(__file__).resolve().parents[1] / "configs" / "detectors"
    dilated = "_dc5" * bool(recipe.settings.get("backbone.dilation"))
    name = f"{found.config}_{found.backbone}"
    for end in (dilated, ""):
        if (folder / f"{name}{end}.py").is_file():
            return f"configs/detectors/{name}{end}.py"
    return f"one like configs/detectors/{found.config}_r50.py with this backbone"


def needed(found: Converted, recipe: Recipe, state: State) -> list[str]:
    """The overrides for a config of the detector in a file: what its weights do not show."""
    settings = {k: v for k, v in recipe.settings.items() if k != "backbone.dilation" or v}
    found_overrides = overrides(settings).split()
    if "Deformable" in found.origin.detector:
        # It decides how many detections are kept, and is no reason to refuse a file.
        found_overrides.append(
            f"model.num_detections={300 if found.origin.author == 'detrex' else 100}"
        )
    if (classes := count_classes(state)) != 80:
        found_overrides.append(f"model.num_classes={classes}")
    if found.origin.detector == "DINO":
        # One set of heads also starts a model that has one for each layer: each gets a copy.
        found_overrides.append(f"model.shared_heads={found.heads == 1}")
    return found_overrides


def write(
    target: str,
    state: State,
    settings: Sequence[Mapping[str, float]],
    names: Sequence[str],
    card: Mapping[str, Any] | None,
) -> None:
    """Write weights, beside them the settings that they may need, the names of their classes and
    the model card that they had, and print how many they are.
    """
    # Of a view, the whole file that it lies in would be written.
    whole = {
        name: value if value.untyped_storage().nbytes() == value.nbytes else value.clone()
        for name, value in state.items()
    }
    data = {"model": whole} | ({SETTINGS: [dict(one) for one in settings]} if settings else {})
    data |= {CLASSES: list(names)} if names else {}
    data |= {CARD: card} if card else {}
    atomic_write(target, lambda stream: torch.save(data, stream))
    numbers = sum(value.numel() for value in state.values())
    classes = count_classes(state)
    end = f", {classes} classes" if classes else ""
    print(f"written: {target}, {len(state)} weights, {numbers / 1e6:.2f} million numbers{end}")


def _check_target(target: str, force: bool) -> None:
    folder = os.path.dirname(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise CheckpointError(f"The folder {folder} does not exist; make it first.")
    if os.path.isdir(target):
        raise CheckpointError(f"{target} is a folder; name a file in it.")
    if target.endswith(".safetensors"):
        raise CheckpointError(f"{target}: the file is written as PyTorch's; name it .pth.")
    if os.path.exists(target) and not force:
        raise CheckpointError(f"{target} exists; --force overwrites it.")


def main(argv: list[str] | None = None) -> None:
    """Parse the command line and convert; an error of the user ends in exit code 2."""
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
        "--ema",
        dest="averaged",
        action="store_true",
        help="convert the moving average that a file holds besides",
    )
    parser.add_argument("--force", action="store_true", help="overwrite OUT if it exists")
    args = parser.parse_args(argv)
    with exit_on_user_error():
        convert(**vars(args))


if __name__ == "__main__":
    main()
