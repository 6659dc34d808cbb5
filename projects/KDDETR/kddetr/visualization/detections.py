"""Detections of several models on the same images, one row an image and one column a model.

Where the first column is ground truth, every other cell says what was found, missed and made up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from . import style
from .labels import place_labels
from .matching import MATCH_IOU, match_detections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches. A cell keeps the shape of its image, but a very tall image gets narrow, not endless.
LARGEST_CELL = 3.2
TALLEST_CELL = 1.35  # times the width
GAP = 0.1
MARGIN = 0.12
CAPTION = 0.25
LINE_WIDTH = 1.1


def detections_side_by_side(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[Instances]],
    *,
    class_names: Sequence[str],
    path: str | Path,
    score_threshold: float = 0.3,
    titles: Sequence[str] | None = None,
) -> Path:
    """Draws a grid of images with boxes and writes it to ``path``.

    Boxes are coloured by class. If the first column is ground truth, detections that match no
    object of their class at IoU 0.5 are dashed, with a white label, and the caption under each cell
    counts objects found and missed and false detections.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ. Small ones are enlarged.
        columns: name to one ``Instances`` an image, in pixels of that image: ``pred_boxes``,
            ``scores``, ``pred_classes``, or for ground truth ``gt_boxes``, ``gt_classes``.
        class_names: of the class indices.
        path: the file; its suffix says the format, and missing folders are made.
        score_threshold: detections below it are neither drawn nor counted.
        titles: one an image, beside its row.

    Returns:
        the path.

    Raises:
        ValueError: nothing to draw, lengths that do not go together, an image that is not uint8
            RGB, boxes of another image size, or a class without a name.
    """
    images = [np.asarray(image) for image in images]
    grid = _check(images, columns, class_names, score_threshold, titles)
    first = next(iter(columns))
    has_truth = all(cell.scores is None for cell in grid[first])
    page = _Page.plan(images, len(columns), titled=titles is not None)
    notes = _notes(score_threshold, has_truth)
    figure, top = page.figure(notes)
    for i, (image, height) in enumerate(zip(images, page.heights)):
        top -= height
        if titles is not None:
            _text(figure, page.left / 2, top + height / 2, titles[i], rotation=90, va="center")
        for j, name in enumerate(columns):
            left = page.left + j * (page.cell + GAP)
            axes = _image_axes(figure, image, left, top, page.cell, height)
            if i == 0:
                _text(figure, left + page.cell / 2, top + height + 0.08, name, bold=True)
            cell = grid[name][i]
            truth = grid[first][i] if has_truth and cell.scores is not None else None
            caption = _draw(figure, axes, cell, truth, class_names)
            _text(figure, left + page.cell / 2, top - 0.06, caption, va="top")
        top -= CAPTION + GAP
    return style.save(figure, path)


@dataclass(frozen=True)
class _Cell:
    """What one model says of one image: (N, 4) ``xyxy``, (N,) classes, (N,) scores or None."""

    boxes: Tensor
    classes: Tensor
    scores: Tensor | None

    @classmethod
    def of(cls, instances: Instances, threshold: float) -> _Cell:
        instances = instances.to(torch.device("cpu"))
        if not instances.has("pred_boxes"):
            return cls(instances.gt_boxes.tensor, instances.gt_classes, None)
        instances = instances[instances.scores >= threshold]
        instances = instances[instances.scores.argsort(descending=True, stable=True)]
        boxes = instances.pred_boxes.tensor.detach()
        return cls(boxes, instances.pred_classes, instances.scores.detach())


@dataclass(frozen=True)
class _Page:
    """Inches: width of a cell, heights of the rows, where the first column begins."""

    cell: float
    heights: list[float]
    left: float
    columns: int

    @classmethod
    def plan(cls, images: Sequence[np.ndarray], columns: int, *, titled: bool) -> _Page:
        left = MARGIN + (0.22 if titled else 0.0)
        room = style.PAGE_WIDTH - left - MARGIN - GAP * (columns - 1)
        # Below an inch a caption no longer fits its cell: the page gets wider instead.
        cell = max(min(room / columns, LARGEST_CELL), 1.6)
        heights = [cell * min(im.shape[0] / im.shape[1], TALLEST_CELL) for im in images]
        return cls(cell, heights, left, columns)

    def figure(self, notes: str) -> tuple[Figure, float]:
        """The figure, with its notes at the foot, and the upper edge of the first row."""
        width = self.left + self.columns * self.cell + (self.columns - 1) * GAP + MARGIN
        draft = style.new_figure(width, 1)
        lines = style.wrap(draft, notes, style.SMALL_SIZE, width - self.left - MARGIN)
        foot = MARGIN + 0.14 * len(lines)
        rows = sum(self.heights) + len(self.heights) * (CAPTION + GAP)
        figure = style.new_figure(width, MARGIN + 0.22 + rows + foot)
        for i, line in enumerate(reversed(lines)):
            y = MARGIN + 0.14 * i
            _text(figure, self.left, y, line, ha="left", size=style.SMALL_SIZE, color=style.MUTED)
        return figure, foot + rows


def _check(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[Instances]],
    class_names: Sequence[str],
    threshold: float,
    titles: Sequence[str] | None,
) -> dict[str, list[_Cell]]:
    """The cells by column, if everything goes together."""
    if not images or not columns:
        raise ValueError("Side by side detections need at least one image and one column.")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles do not go with {len(images)} images.")
    for image in images:
        style.check_image(image)
    for name, column in columns.items():
        if len(column) != len(images):
            raise ValueError(
                f"Column {name!r} has Instances of {len(column)} images, not {len(images)}."
            )
        for i, (image, instances) in enumerate(zip(images, column)):
            if tuple(instances.image_size) != image.shape[:2]:
                raise ValueError(
                    f"Boxes of {name!r} are in pixels of an image of {instances.image_size}, but"
                    f" image {i} is {image.shape[:2]} (height, width): rescale them first."
                )
    grid = {name: [_Cell.of(x, threshold) for x in column] for name, column in columns.items()}
    for name, cells in grid.items():
        highest = max((int(c.classes.max()) for c in cells if len(c.classes)), default=-1)
        if highest >= len(class_names):
            raise ValueError(
                f"{name!r} has class {highest}, but only {len(class_names)} classes have names."
            )
    return grid


def _notes(threshold: float, has_truth: bool) -> str:
    text = f"Detections with a score of {threshold:g} or more."
    if has_truth:
        text += (
            f" Solid: finds an object of its class, IoU {MATCH_IOU:g} or more."
            " Dashed, white label: false (no such object, or one that was already found)."
        )
    return text


def _draw(
    figure: Figure,
    axes: Axes,
    cell: _Cell,
    truth: _Cell | None,
    class_names: Sequence[str],
) -> str:
    """Boxes and labels of one cell; returns its caption."""
    right = torch.ones(len(cell.boxes), dtype=torch.bool)
    noun = "object" if cell.scores is None else "detection"
    caption = f"{len(right)} {noun}{'' if len(right) == 1 else 's'}"
    if truth is not None:
        matching = match_detections(
            boxes=cell.boxes,
            scores=cell.scores,
            classes=cell.classes,
            gt_boxes=truth.boxes,
            gt_classes=truth.classes,
        )
        right, caption = matching.correct, str(matching)
    if not len(cell.boxes):
        return caption
    texts = [class_names[c] for c in cell.classes.tolist()]
    if cell.scores is not None:
        texts = [f"{t} {s:.2f}" for t, s in zip(texts, cell.scores.tolist())]
    boxes = _clip(cell.boxes.numpy(), axes)
    for box, index, ok in zip(boxes, cell.classes.tolist(), right.tolist()):
        _box(axes, box, style.class_colour(index), dashed=not ok)
    _labels(figure, axes, boxes, texts, cell.classes.tolist(), right.tolist())
    return caption


def _clip(boxes: np.ndarray, axes: Axes) -> np.ndarray:
    """Boxes cut to the image, (N, 4): a line on the very edge would be lost with what is beyond."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    return boxes.clip(0, np.array([width, height, width, height]))


def _box(axes: Axes, box: np.ndarray, colour: str, *, dashed: bool) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            box[:2],
            *(box[2:] - box[:2]),
            fill=False,
            edgecolor=colour,
            linewidth=LINE_WIDTH,
            linestyle=(0, (3.0, 2.0)) if dashed else "-",
            path_effects=style.outline(LINE_WIDTH + 0.9),
            clip_on=False,
        )
    )


def _labels(
    figure: Figure,
    axes: Axes,
    boxes: np.ndarray,
    texts: Sequence[str],
    classes: Sequence[int],
    right: Sequence[bool],
) -> None:
    """Labels on plates of the class's colour, or on white ones where the detection is false."""
    from matplotlib.patches import Rectangle

    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    unit = width / (axes.get_position().width * figure.get_figwidth())  # pixels an inch
    pad = 0.02
    sizes = np.array([style.text_size(figure, text, style.SMALL_SIZE) for text in texts])
    sizes = (sizes + 2 * pad) * unit
    places = place_labels(boxes, sizes, frame=(width, height))
    for text, index, ok, size, place in zip(texts, classes, right, sizes, places):
        if place is None:
            continue
        colour = style.class_colour(index)
        plate = colour if ok else "white"
        axes.add_patch(
            Rectangle(place, *size, facecolor=plate, edgecolor=colour, linewidth=0.6, zorder=3)
        )
        axes.text(
            place[0] + size[0] / 2,
            place[1] + size[1] / 2,
            text,
            size=style.SMALL_SIZE,
            color=style.readable_on(plate),
            ha="center",
            va="center_baseline",
            zorder=4,
            parse_math=False,
        )


def _image_axes(
    figure: Figure, image: np.ndarray, left: float, bottom: float, width: float, height: float
) -> Axes:
    """Axes in pixels of the image, which fills the middle of that rectangle (inches)."""
    scale = min(width / image.shape[1], height / image.shape[0])
    w, h = image.shape[1] * scale, image.shape[0] * scale
    page_w, page_h = figure.get_size_inches()
    x, y = left + (width - w) / 2, bottom + (height - h) / 2
    axes = figure.add_axes((x / page_w, y / page_h, w / page_w, h / page_h))
    style.show_image(axes, image)
    return axes


def _text(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    *,
    bold: bool = False,
    size: float | None = None,
    ha: str = "center",
    va: str = "baseline",
    color: str = style.INK,
    rotation: float = 0,
) -> None:
    """Text on the page, at inches from its lower left corner."""
    width, height = figure.get_size_inches()
    figure.text(
        x / width,
        y / height,
        text,
        size=size or (style.TITLE_SIZE if bold else style.TEXT_SIZE),
        weight="bold" if bold else "normal",
        ha=ha,
        va=va,
        color=color,
        rotation=rotation,
        parse_math=False,
    )
