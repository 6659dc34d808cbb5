"""Where a detector's file can come from, and how that is seen: by its names alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from . import dab_names, deformable_names
from .heads import head_index, heads_are_left_out
from .names import Names, sizes_of

__all__ = ["ORIGINS", "Match", "Origin", "recognised"]

_PROJECT = "its authors' project"
_DETREX = "detrex"
_HUGGING_FACE = "Hugging Face"


@dataclass(frozen=True)
class Origin:
    """One detector as one project writes it.

    Args:
        detector: what it is.
        author: who wrote the file.
        names: the table of its names.
        settings: `key=value` overrides that its weights were trained with and do not hold.
        config: beginning of the name of a config for it in configs/detectors.
        shares_heads: all decoder layers may have one head, written once a layer or once only.
        note: what else is to be known of the settings.
    """

    detector: str
    author: str
    names: Names
    settings: str
    config: str
    shares_heads: bool = True
    note: str = ""

    def __str__(self) -> str:
        return f"{self.detector} of {self.author}"


# What a file does not say and its numbers depend on: the image position embedding, the clamp.
_DAB = "model.temperature=20 model.offset=0 model.eps="
_DEFORMABLE = "model.temperature=10000 model.offset=-0.5 model.eps="

ORIGINS = (
    Origin("DAB-DETR", _PROJECT, dab_names.DAB_DETR_OFFICIAL, f"{_DAB}1e-3", "dab_detr"),
    Origin("DAB-DETR", "the KD-DETR project", dab_names.KD_DETR_STUDENT, f"{_DAB}1e-3", "dab_detr"),
    Origin("DAB-DETR", _DETREX, dab_names.DAB_DETR_DETREX, f"{_DAB}1e-3", "dab_detr"),
    Origin("DAB-DETR", _HUGGING_FACE, dab_names.DAB_DETR_HUGGING_FACE, f"{_DAB}1e-5", "dab_detr"),
    *(
        Origin(
            "Deformable DETR",
            author,
            names,
            f"{_DEFORMABLE}{eps} model.num_detections={detections}",
            "deformable_detr",
        )
        for author, names, eps, detections in (
            (_PROJECT, deformable_names.DEFORMABLE_OFFICIAL, "1e-5", 100),
            (_DETREX, deformable_names.DEFORMABLE_DETREX, "1e-3", 300),
            (_HUGGING_FACE, deformable_names.DEFORMABLE_HUGGING_FACE, "1e-5", 100),
        )
    ),
    *(
        Origin(
            "two-stage Deformable DETR",
            author,
            names,
            f"{_DEFORMABLE}{eps} model.num_detections={detections}",
            "deformable_detr_two_stage",
            shares_heads=False,
        )
        for author, names, eps, detections in (
            (_PROJECT, deformable_names.TWO_STAGE_OFFICIAL, "1e-5", 100),
            (_DETREX, deformable_names.TWO_STAGE_DETREX, "1e-3", 300),
            (_HUGGING_FACE, deformable_names.TWO_STAGE_HUGGING_FACE, "1e-5", 100),
        )
    ),
    Origin("DINO", _PROJECT, deformable_names.DINO_OFFICIAL, f"{_DAB}1e-3", "dino"),
    Origin(
        "DINO",
        _DETREX,
        deformable_names.DINO_DETREX,
        f"{_DEFORMABLE}1e-3",
        "dino",
        shares_heads=False,
        note="detrex's 24-epoch weights have model.temperature=20 model.offset=0",
    ),
)


@dataclass(frozen=True)
class Match:
    """How well a file agrees with an origin; all lists hold the file's names."""

    origin: Origin
    known: dict[str, str]
    missing: list[str]
    unknown: list[str]


def recognised(state: dict[str, torch.Tensor]) -> Match | None:
    """The origin that a detector's names agree with best, None when they agree with none.

    Args:
        state: a detector's weights without its backbone's.
    """
    matches = [_match(state, origin) for origin in ORIGINS]
    best = min(matches, key=lambda match: len(match.missing) + len(match.unknown))
    # Below one half it is another thing that happens to have a few names of these.
    agreeing = len(state) - len(best.unknown)
    return best if agreeing and 2 * agreeing >= len(state) else None


def _match(state: dict[str, torch.Tensor], origin: Origin) -> Match:
    known = origin.names.of(sizes_of(state, origin.names))
    present = {known[name] for name in state if name in known}
    first: dict[str, str] = {}
    for theirs, ours in known.items():
        first.setdefault(ours or theirs, theirs)  # a dropped weight has only its own name
    missing = [
        theirs
        for ours, theirs in first.items()
        if ours not in present and theirs not in state and not _left_out(ours, present, origin)
    ]
    return Match(origin, known, missing, [name for name in state if name not in known])


def _left_out(name: str, present: Iterable[str], origin: Origin) -> bool:
    """Whether it is a head that is written once for all layers (safetensors keep one of equals)."""
    index = head_index(name)
    return index is not None and origin.shares_heads and heads_are_left_out(present, index[0])
