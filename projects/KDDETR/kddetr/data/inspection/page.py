"""The report about labelled data as one HTML page, without network or scripts."""

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from ...errors import DatasetError
from ..images import read_image
from .report import DataReport, OddImage

THUMBNAIL = 360  # pixels of the longer side
MOST_CLASSES = 30  # rows of the table that are not folded
MOST_LABELS = 15  # boxes of an image that are labelled with their class
_SIDES = (8, 16, 32, 64, 96, 128, 256, 512)
_PER_IMAGE = (0, 1, 2, 4, 8, 16, 32, 64, 100)


def write_data_page(report: DataReport, file: str | os.PathLike) -> Path:
    """Write a report as one HTML file, which holds its pictures; makes missing folders.

    Args:
        report: what :func:`~kddetr.data.inspect_data` returns.
        file: the path, which is returned.
    """
    names = report.data.classes
    pictures = _Pictures(names)
    split_names = list(report.counts)
    counts = list(report.counts.values())
    classes = [
        (name, [(int(c.of_class[i]), _share(c.of_class[i], c.boxes)) for c in counts])
        for i, name in enumerate(names)
    ]
    classes.sort(key=lambda row: [-count for count, _ in row[1]])
    page = _environment().get_template("page.html.jinja")
    text = page.render(
        report=report,
        splits=report.counts,
        split_names=split_names,
        classes=classes,
        most_classes=MOST_CLASSES,
        widest=max((share for _, row in classes for _, share in row), default=0) or 1,
        findings=[(one, [pictures.draw(image) for image in one.images]) for one in report.findings],
        samples=[pictures.draw(image) for image in report.samples],
        charts=[
            ("Size of boxes", "square root of the area, in pixels of the image file",
             _histogram(_SIDES, [c.sides for c in counts], below=True)),
            ("Boxes of an image", "crowds not counted",
             _histogram(_PER_IMAGE, [c.per_image for c in counts], below=False)),
        ],
        image_sizes=[_common_sizes(c.widths, c.heights) for c in counts],
    )  # fmt: skip
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def _environment() -> Environment:
    here = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=here,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda number: f"{number:,}"
    return environment


def _share(count: float, total: float) -> float:
    return float(count) / total if total else 0.0


def _histogram(
    edges: Sequence[int], columns: Sequence[np.ndarray], below: bool
) -> tuple[list[str], list[list[float]]]:
    """The labels of the bars, and for each split the share in each of them.

    With ``below`` a bar ends before its edge, as lengths do; otherwise it contains it, as numbers.
    """
    shares = []
    for values in columns:
        places = np.searchsorted(edges, values, side="right" if below else "left")
        counts = np.bincount(places, minlength=len(edges) + 1)
        shares.append([_share(count, max(len(values), 1)) for count in counts])
    starts = [None, *edges]
    labels = []
    for start, end in zip(starts, [*edges, None]):
        if end is None:
            labels.append(f"{start}+" if below else f">{start}")
        elif start is None:
            labels.append(f"<{end}" if below else str(end))
        elif below:
            labels.append(f"{start}-{end}")
        else:
            labels.append(str(end) if end == start + 1 else f"{start + 1}-{end}")
    return labels, shares


def _common_sizes(widths: np.ndarray, heights: np.ndarray, most: int = 4) -> str:
    """The most frequent image sizes, in words."""
    known = np.isfinite(widths) & np.isfinite(heights)
    pairs = np.column_stack([widths, heights])[known].astype(int)
    if not len(pairs):
        return "unknown"
    sizes, counts = np.unique(pairs, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    words = [f"{sizes[i][0]} x {sizes[i][1]} ({counts[i]:,})" for i in order]
    more = f" and {len(sizes) - most} others" if len(sizes) > most else ""
    return ", ".join(words) + more


class _Pictures:
    """Images as what the template draws: a small JPEG and boxes in pixels of the whole image."""

    def __init__(self, names: Sequence[str]):
        self._names = names
        self._files: dict[str, tuple[str, int, int]] = {}

    def draw(self, image: OddImage) -> dict:
        """What the template needs of an image."""
        data, width, height = self._read(image.file)
        picture = {"data": data, "split": image.split}
        picture |= {"name": os.path.basename(image.file), "file": image.file}
        if not data:
            return picture
        frame = _frame(image, width, height)
        unit = max(frame[2:]) / 100  # 1 % of the picture
        order = np.argsort(image.odd, kind="stable").tolist()  # odd boxes are drawn over the others
        # Where some boxes are odd, only these are named; otherwise as many as can be read.
        named = [i for i in order if image.odd[i] or not image.odd.any()][-MOST_LABELS:]
        boxes = []
        for i in order:
            x, y, w, h = image.boxes[i].tolist()
            if image.odd[i]:  # is seen even where it has no area
                more_w, more_h = max(0, 3 * unit - w), max(0, 3 * unit - h)
                x, y, w, h = x - more_w / 2, y - more_h / 2, w + more_w, h + more_h
            right = x > frame[0] + 0.7 * frame[2]
            boxes.append(
                {
                    "box": [round(value, 2) for value in (x, y, w, h)],
                    "odd": bool(image.odd[i]),
                    "name": self._names[image.labels[i]] if i in named else "",
                    "text_x": round(x + w if right else x, 2),
                    "text_y": round(max(y - unit, frame[1] + 5.5 * unit), 2),
                    "anchor": "end" if right else "start",
                }
            )
        return picture | {
            "width": width, "height": height, "unit": unit, "boxes": boxes,
            "frame": " ".join(f"{value:.1f}" for value in frame),
            "small": max(width, height) < THUMBNAIL / 2,
        }  # fmt: skip

    def _read(self, file: str) -> tuple[str, int, int]:
        """An image as a data URI, its width and height; an empty one where it is broken."""
        if file not in self._files:
            try:
                pixels = read_image(file)
            except DatasetError:
                return "", 0, 0
            height, width = pixels.shape[:2]
            small = Image.fromarray(pixels)
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=80)
            data = base64.b64encode(buffer.getvalue()).decode("ascii")
            self._files[file] = f"data:image/jpeg;base64,{data}", width, height
        return self._files[file]


def _frame(image: OddImage, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of the plane that is shown: the image, and half of its size around it at most where
    odd boxes lie there; as x, y, width and height.
    """
    odd = image.boxes[image.odd]
    size = np.array([width, height], dtype=float)
    start = np.minimum(0, odd[:, :2].min(axis=0, initial=0)).clip(-size / 2)
    end = np.maximum(size, (odd[:, :2] + odd[:, 2:]).max(axis=0, initial=0)).clip(max=1.5 * size)
    return (*start.tolist(), *(end - start).tolist())
