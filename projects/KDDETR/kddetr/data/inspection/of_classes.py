"""Findings about classes: without boxes in a split, with few, or far fewer than others."""

from collections.abc import Sequence

import numpy as np

from .labels import Labels
from .of_images import SHOWN
from .report import Finding

FEW = 10  # training boxes of a class
IMBALANCE = 100  # times as many boxes of the most frequent class as of the rarest


def class_findings(labels: Sequence[Labels], names: Sequence[str]) -> list[Finding]:
    """What is odd about the numbers of boxes of the classes in several splits."""
    counts = {
        one.split: np.bincount(one.label[one.counted], minlength=len(names)) for one in labels
    }
    train, val = counts.get("train"), counts.get("val")
    findings = []
    if train is not None:
        untrained = train == 0
        if val is not None:
            findings += _only_in_val(labels, untrained & (val > 0), names)
            untrained &= val == 0
        if untrained.any():
            findings.append(
                Finding(
                    "classes without boxes",
                    "warning",
                    f"{_listed(untrained, names)} no box: the detector's outputs for what is not "
                    "in the data learn nothing; remove such classes, or label some.",
                    count=int(untrained.sum()),
                )
            )
        few = (train > 0) & (train < FEW)
        if few.any():
            findings.append(
                Finding(
                    "rare classes",
                    "warning",
                    f"{_listed(few, names)} fewer than {FEW} training boxes, too little to learn "
                    "them well; label more.",
                    _examples(labels, "train", few),
                    int(few.sum()),
                )
            )
        findings += _imbalance(train, names)
    if val is not None:
        unmeasured = (val == 0) & (train > 0 if train is not None else False)
        if unmeasured.any():
            findings.append(
                Finding(
                    "classes not in val",
                    "warning",
                    f"{_listed(unmeasured, names)} no box in the validation split, so that "
                    "AP is the mean over the other classes.",
                    count=int(unmeasured.sum()),
                )
            )
    return findings


def _only_in_val(labels: Sequence[Labels], only: np.ndarray, names: Sequence[str]) -> list[Finding]:
    if not only.any():
        return []
    sentence = (
        f"{_listed(only, names)} boxes in the validation split and none in the training split: "
        "AP stays near 0 there and lowers the mean; move some of these images to training."
    )
    shown = _examples(labels, "val", only)
    return [Finding("classes only in val", "warning", sentence, shown, int(only.sum()))]


def _imbalance(train: np.ndarray, names: Sequence[str]) -> list[Finding]:
    present = np.flatnonzero(train)
    if not len(present):
        return []
    most, least = present[train[present].argmax()], present[train[present].argmin()]
    if train[most] < IMBALANCE * train[least]:
        return []
    sentence = (
        f"The class {names[most]!r} has {train[most]:,} training boxes and {names[least]!r} has "
        f"{train[least]:,}: AP counts every class the same, so look at the AP of each class; more "
        "images of the rare ones help most."
    )
    return [Finding("imbalance", "warning", sentence, count=2)]


def _examples(labels: Sequence[Labels], split: str, classes: np.ndarray) -> tuple:
    (one,) = (one for one in labels if one.split == split)
    odd = one.counted & classes[one.label]
    return tuple(one.show(int(i), odd) for i in np.unique(one.image[odd])[:SHOWN])


def _listed(which: np.ndarray, names: Sequence[str], most: int = 5) -> str:
    """``The classes 'a' and 'b' have``, with at most some of the names."""
    found = [repr(names[i]) for i in np.flatnonzero(which)]
    more = f" and {len(found) - most} more" if len(found) > most else ""
    if len(found) == 1:
        return f"The class {found[0]} has"
    return f"The classes {', '.join(found[:most])}{more} have"
