"""Findings about image files: broken, of another size than stated, and copies."""

from collections.abc import Sequence

import numpy as np

from ...errors import DatasetError
from ..images import check_bits, check_size
from .labels import Labels
from .pixels import Pixels, equal_files
from .report import Finding

SHOWN = 6  # images of a finding


def image_findings(labels: Sequence[Labels], pixels: dict[str, Pixels]) -> list[Finding]:
    """What is odd about the image files of several splits."""
    return [
        *_broken(labels, pixels),
        *_other_sizes(labels, pixels),
        *_dark(labels, pixels),
        *_copies(labels, pixels),
        *_empty(labels),
    ]


def _broken(labels: Sequence[Labels], pixels: dict[str, Pixels]) -> list[Finding]:
    bad = [
        (one, i)
        for one in labels
        for i, file in enumerate(one.files)
        if file in pixels and pixels[file].error
    ]
    if not bad:
        return []
    what = "1 image cannot" if len(bad) == 1 else f"{len(bad)} images cannot"
    first = pixels[bad[0][0].files[bad[0][1]]].error
    images = tuple(one.show(i) for one, i in bad[:SHOWN])
    sentence = f"{what} be read, and training would stop there: {first}"
    return [Finding("broken images", "error", sentence, images, len(bad))]


def _other_sizes(labels: Sequence[Labels], pixels: dict[str, Pixels]) -> list[Finding]:
    bad, first = [], ""
    for one in labels:
        for i, file in enumerate(one.files):
            size = pixels[file].size if file in pixels else None
            if size is None:
                continue
            try:
                check_size(file, size, (one.records[i]["width"], one.records[i]["height"]))
            except DatasetError as error:
                bad.append((one, i))
                first = first or str(error)
    if not bad:
        return []
    images = tuple(one.show(i) for one, i in bad[:SHOWN])
    more = f" The same holds for {len(bad) - 1} more." if len(bad) > 1 else ""
    return [Finding("other sizes", "error", first + more, images, len(bad))]


def _dark(labels: Sequence[Labels], pixels: dict[str, Pixels]) -> list[Finding]:
    good = [file for one in labels for file in one.files if file in pixels]
    good = [file for file in good if not pixels[file].error]
    try:
        check_bits(good, None, "dataloader.train.mapper.bits")
    except DatasetError as error:
        return [Finding("unused bits", "error", str(error), (), len(good))]
    return []


def _copies(labels: Sequence[Labels], pixels: dict[str, Pixels]) -> list[Finding]:
    """Copies of images: in several splits, and in one."""
    place = {file: (one, i) for one in labels for i, file in enumerate(one.files)}
    split_of: dict[str, set[str]] = {}
    for one in labels:
        for file in one.files:
            split_of.setdefault(file, set()).add(one.split)
    across, within = [], []
    for group in equal_files(place, pixels):
        split = {min(split_of[file]): file for file in reversed(group)}  # the first of each split
        if len(split) > 1:
            across.append(sorted(split.values(), key=group.index))
        else:
            within.append(group)
    across += [[file] for file, own in split_of.items() if len(own) > 1]
    findings = []
    if across:
        first = across[0]
        names = " and ".join(f"{file} ({place[file][0].split})" for file in first[:2])
        what = "1 picture is" if len(across) == 1 else f"{len(across)} pictures are"
        findings.append(
            Finding(
                "shared images",
                "warning",
                f"{what} in several splits, such as {names}: results on them "
                "say little about other images; keep each picture in one split.",
                _shown(across, place),
                len(across),
            )
        )
    if within:
        copies = sum(len(group) - 1 for group in within)
        what = "1 image is a copy of another"
        if copies > 1:
            what = f"{copies} images are copies of others"
        findings.append(
            Finding(
                "copies",
                "note",
                f"{what} in the same split, such as {within[0][1]} of {within[0][0]}: copies count "
                "several times, and may have different boxes.",
                _shown(within, place),
                copies,
            )
        )
    return findings


def _shown(groups: list[list[str]], place: dict) -> tuple:
    """The first groups, two images of each."""
    files = [file for group in groups[: SHOWN // 2] for file in group[:2]]
    return tuple(place[file][0].show(place[file][1]) for file in files)


def _empty(labels: Sequence[Labels]) -> list[Finding]:
    empty = [
        (one, int(i))
        for one in labels
        for i in np.setdiff1d(np.arange(len(one.files)), one.image[one.counted])
    ]
    total = sum(len(one.files) for one in labels)
    if not empty:
        return []
    most = len(empty) > 0.5 * total
    have = "has" if len(empty) == 1 else "have"
    sentence = (
        f"{len(empty)} of {total} images {have} no object: such images are trained on as "
        "background, which is right only where somebody has looked at them"
        f"{'; are they labelled?' if most else '.'}"
    )
    images = tuple(one.show(i) for one, i in empty[:SHOWN])
    return [Finding("empty images", "warning" if most else "note", sentence, images, len(empty))]
