"""What a file and a model have to have in common, each difference said in one sentence."""

import logging
import re
from collections.abc import Mapping

import torch

from ...errors import CheckpointError
from .backbone import described, same_backbone
from .classes import count_classes, rows

__all__ = [
    "check_backbone",
    "check_classes",
    "check_detector",
    "check_sizes",
    "check_width",
]

_log = logging.getLogger(__name__)
_WIDTH = "encoder.layers.0.attention_norm.weight"
_QUERIES = ("content", "anchors", "embedding.weight")

State = Mapping[str, torch.Tensor]


def check_detector(state: State, own: State, source: str, origin: str) -> None:
    """Refuse a file whose queries, or whose attention to the image, the model has not got."""
    if not _kinds(state) <= _kinds(own):
        raise CheckpointError(
            f"{source} is {origin}, and the model is another detector, whose queries are of "
            "another kind; take the config of the detector in the file."
        )


def _kinds(state: State) -> set[str]:
    """Names that tell one detector from another, whatever its number of layers."""
    return {
        re.sub(r"\d+", "N", name)
        for name in state
        if ".cross_attention." in name
        or (name.startswith("query_source.") and not name.startswith("query_source.proposals."))
    }


def check_backbone(state: State, own: State, source: str, *, refuse: bool) -> None:
    """Refuse, or warn of, another backbone than the model's: little of it would be loaded."""
    if same_backbone(state, own):
        return
    difference = f"{source} has {described(state)} and the model {described(own)}"
    if refuse:
        raise CheckpointError(
            f"{difference}; take a config with the file's backbone, or a file with the model's."
        )
    _log.warning("%s: only what fits of that backbone is loaded.", difference)


def check_width(state: State, own: State, source: str) -> None:
    """Refuse a file of another width."""
    theirs, ours = rows(state, _WIDTH), rows(own, _WIDTH)
    if theirs and ours and theirs != ours:
        raise CheckpointError(
            f"{source} is {theirs} wide and the model {ours}; set its "
            f"embed_dim={theirs}, or take a file of the model's width."
        )


def check_sizes(state: State, own: State, source: str, *, strict: bool) -> None:
    """Refuse, or without `strict` warn of, another number of layers, queries or levels."""
    theirs, ours = _sizes(state), _sizes(own)
    for (what, option), count in theirs.items():
        model = ours[what, option]
        if not (count and model) or count == model:
            continue
        difference = f"{source} has {_counted(count, what)} and the model {model}"
        if strict:
            raise CheckpointError(
                f"{difference}; set its {option.format(count)}, or take a file of the model's size."
            )
        _log.warning("%s: what fits is loaded, the rest is trained anew.", difference)


def _counted(count: int, what: str) -> str:
    if count == 1:
        return f"1 {what}"
    return f"{count} {what}s".replace("querys", "queries")


def _sizes(state: State) -> dict[tuple[str, str], int]:
    """(what is counted, the option of a config that says it) -> how many."""
    queries = (rows(state, f"query_source.{name}") for name in _QUERIES)
    return {
        ("encoder layer", "encoder_layers={}"): _layers(state, "encoder"),
        ("decoder layer", "decoder_layers={}"): _layers(state, "decoder"),
        ("query", "num_queries={}"): max(queries),
        ("feature level", "in_features and extra_levels"): rows(state, "encoder.level_embedding"),
    }


def _layers(state: State, part: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{part}.layers.")})


def check_classes(state: State, own: State, source: str, *, strict: bool) -> None:
    """Refuse, or without `strict` warn of, another number of classes."""
    theirs, ours = count_classes(state), count_classes(own)
    if theirs == ours:
        return
    if strict:
        raise CheckpointError(
            f"{source} knows {theirs} classes and the model {ours}; set its num_classes={theirs}, "
            f"or take a file with {ours} classes."
        )
    _log.warning(
        "%s knows %d classes and the model %d: its class heads are not loaded but trained anew.",
        source,
        theirs,
        ours,
    )
