"""What a report about labelled data consists of."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..layouts import DataFolder

SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class OddImage:
    """An image to be shown.

    Attributes:
        file: its path.
        split: ``train``, ``val`` or ``test``.
        boxes: (N, 4) x, y, width and height in pixels of the upright image.
        labels: (N,) index of the class of each box.
        odd: (N,) bool: the boxes that a finding is about.
    """

    file: str
    split: str
    boxes: np.ndarray
    labels: np.ndarray
    odd: np.ndarray


@dataclass(frozen=True)
class Finding:
    """Something that is odd about the data.

    Attributes:
        kind: a short name, such as ``duplicates``.
        severity: ``error``: training would stop, or learn something wrong; ``warning``: results
            will suffer or be misleading; ``note``: good to know.
        sentence: what was found, and what to do.
        images: some of the images that it is about.
        count: how many images, boxes or classes it is about.
    """

    kind: str
    severity: str
    sentence: str
    images: tuple[OddImage, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class SplitCounts:
    """Numbers of a split.

    Attributes:
        images, boxes: how many there are, boxes to be ignored (crowds, difficult ones) not counted.
        ignored: boxes to be ignored.
        empty: images without a box.
        of_class: (K,) boxes of each class.
        evaluated: boxes that are small, medium and large in COCO's metric, by their area in pixels
            of the image file: below 32 x 32, below 96 x 96, and above.
        trained: the same in pixels of the image as the detector is given it.
        sides: (N,) square root of the area of each box, in pixels of the image file.
        per_image: (images,) boxes of each image.
        widths, heights: (images,) in pixels.
    """

    images: int
    boxes: int
    ignored: int
    empty: int
    of_class: np.ndarray
    evaluated: tuple[int, int, int]
    trained: tuple[int, int, int]
    sides: np.ndarray
    per_image: np.ndarray
    widths: np.ndarray
    heights: np.ndarray


@dataclass(frozen=True)
class DataReport:
    """A report about labelled data.

    Attributes:
        data: the splits that it is about.
        counts: the numbers of each split, by its name.
        findings: what is odd, the worst first.
        samples: ordinary training images, to see that boxes lie where they should.
        min_size, max_size: the size to which the detector resizes images, short and long side;
            a ``min_size`` of 0 leaves them as they are.
        notes: decisions that were made in finding the data, and what was not looked at.
    """

    data: DataFolder
    counts: dict[str, SplitCounts]
    findings: list[Finding]
    samples: list[OddImage]
    min_size: int
    max_size: int
    notes: list[str] = field(default_factory=list)

    def of_severity(self, severity: str) -> list[Finding]:
        """The findings of one severity."""
        return [finding for finding in self.findings if finding.severity == severity]

    def lines(self) -> list[str]:
        """The report as plain lines for a terminal."""
        lines = [f"{self.data.layout} data with {_classes(self.data.classes)}"]
        for split, counts in self.counts.items():
            small, medium, large = counts.evaluated
            lines.append(
                f"  {split + ':':6} {counts.images:,} images ({counts.empty:,} without objects), "
                f"{counts.boxes:,} boxes: {small:,} small, {medium:,} medium, {large:,} large"
            )
        lines += [f"  {note}" for note in self.notes]
        lines += [f"{finding.severity}: {finding.sentence}" for finding in self.findings]
        return lines if self.findings else [*lines, "Nothing odd was found."]


def _classes(names: Sequence[str], most: int = 8) -> str:
    listed = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}: {listed}"
