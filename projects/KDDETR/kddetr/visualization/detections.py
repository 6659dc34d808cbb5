"""Detections of several models on the same images: one row per image, one column per model.

If the first column is the ground truth, the caption of every other cell counts the objects found,
the objects missed and the false detections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Instances
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from . import style
from .labels import place_labels
from .matching import MATCH_IOU, match_detections

# Inches. A caption needs 1.75: with more columns than fit into the page, the page becomes wider.
NARROWEST_CELL, WIDEST_CELL = 1.75, 3.2
LOWEST_CELL, TALLEST_CELL = 0.1, 1.35  # times the width of the cell
LETTER_WIDTH = 0.066  # of a label
SHORTEST_NAME = 8  # letters to which the name of a class may be cut


@style.page_style
def detections_side_by_side(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[Instances]],
    *,
    class_names: Sequence[str],
    path: str | Path,
    score_threshold: float = 0.3,
    titles: Sequence[str] | None = None,
) -> Path:
    """Draws a grid of images with boxes, coloured by class; writes and returns ``path``.

    If the first column is the ground truth, a detection that matches no object of its class at IoU
    0.5 is dashed and has a white label, and a caption below each cell counts objects found, objects
    missed and false detections.

    Args:
        images: (H, W, 3) uint8 RGB each; sizes may differ. Small images are enlarged.
        columns: name of a column to one ``Instances`` per image, in pixels of that image:
            ``pred_boxes``, ``scores``, ``pred_classes``, or for the ground truth ``gt_boxes``,
            ``gt_classes``.
        class_names: the name of each class index.
        path: the file; its suffix gives the format, and missing folders are made.
        score_threshold: detections below it are neither drawn nor counted.
        titles: one per image, to the left of its row.

    Raises:
        ValueError: there is nothing to draw, lengths differ, an image is not uint8 RGB, boxes are
            of another image size, or a class has no name.
    """
    images = [np.asarray(image) for image in images]
    _check(images, columns, titles)
    first = [_Cell.of(instances, score_threshold) for instances in next(iter(columns.values()))]
    has_truth = all(cell.scores is None for cell in first)
    figure, grid = _new_page(images, list(columns), titles)
    cells = []
    for name, column_of_axes, column in zip(columns, grid.T, columns.values()):
        for axes, image, instances, truth in zip(column_of_axes, images, column, first):
            cell = _Cell.of(instances, score_threshold, truth if has_truth else None)
            if (highest := max(cell.classes.tolist(), default=-1)) >= len(class_names):
                raise ValueError(
                    f"Column {name!r} has class {highest}, but class_names has"
                    f" {len(class_names)} names."
                )
            style.show_image(axes, image)
            axes.set_xlabel(cell.caption)
            cells.append((axes, cell))
    note = f"Detections with a score of {score_threshold:g} or more."
    if has_truth:
        note += f" Solid: finds an object of its class, IoU {MATCH_IOU:g} or more."
        note += " Dashed, white label: false (no such object, or one that was already found)."
    style.footnote(figure, note)
    figure.draw_without_rendering()  # the place of a label depends on the final size of the image
    for axes, cell in cells:
        _draw_boxes(axes, cell, class_names)
    return style.save(figure, path)


def _new_page(
    images: Sequence[np.ndarray], names: Sequence[str], titles: Sequence[str] | None
) -> tuple[Figure, np.ndarray]:
    """A figure with column names and row titles, and its axes, (images, columns)."""
    width = min(max(style.PAGE_WIDTH / len(names), NARROWEST_CELL), WIDEST_CELL)
    shapes = [image.shape[0] / image.shape[1] for image in images]
    heights = [width * np.clip(shape, LOWEST_CELL, TALLEST_CELL) for shape in shapes]
    widest = max(height / shape for height, shape in zip(heights, shapes))
    width = min(max(widest, NARROWEST_CELL), width)
    # Room for row titles on the left, for captions, and for column names and the footnote.
    size = width * len(names) + (0.25 if titles else 0), sum(heights) + 0.25 * len(images) + 0.5
    figure = Figure(size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.04, wspace=0, hspace=0)
    grid = figure.subplots(len(images), len(names), squeeze=False, height_ratios=heights)
    for axes, name in zip(grid[0], names):
        axes.set_title(style.wrap(name, width, style.TITLE_SIZE))
    for axes, title, height in zip(grid[:, 0], titles or (), heights):
        axes.set_ylabel(style.wrap(title, height))
    return figure, grid


@dataclass(frozen=True)
class _Cell:
    """What is drawn over one image: (N, 4) ``xyxy`` boxes, (N,) classes, (N,) scores or None for
    the ground truth, (N,) bool whether a box is drawn as correct, and the caption."""

    boxes: Tensor
    classes: Tensor
    scores: Tensor | None
    correct: Tensor
    caption: str

    @classmethod
    def of(cls, instances: Instances, threshold: float, truth: "_Cell | None" = None) -> "_Cell":
        """Detections with at least the score ``threshold``, matched with the cell of the ground
        truth if it is given; or the ground truth itself."""
        found = instances.to("cpu")
        if found.has("pred_boxes"):
            found = found[found.scores >= threshold]
            found = found[found.scores.argsort(descending=True, stable=True)]
            boxes, classes = found.pred_boxes.tensor.detach(), found.pred_classes
            scores, noun = found.scores.detach(), "detection"
        else:
            boxes, classes, scores, noun = found.gt_boxes.tensor, found.gt_classes, None, "object"
        correct = torch.ones(len(boxes), dtype=torch.bool)
        caption = f"{len(boxes)} {noun}{'' if len(boxes) == 1 else 's'}"
        if truth is not None and scores is not None:
            detections = {"boxes": boxes, "scores": scores, "classes": classes}
            matching = match_detections(
                **detections, gt_boxes=truth.boxes, gt_classes=truth.classes
            )
            correct, caption = matching.correct, str(matching)
        return cls(boxes, classes, scores, correct, caption)


def _check(
    images: Sequence[np.ndarray],
    columns: Mapping[str, Sequence[Instances]],
    titles: Sequence[str] | None,
) -> None:
    if not images or not columns:
        raise ValueError("detections_side_by_side needs at least one image and one column.")
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"There are {len(titles)} titles for {len(images)} images: give one each.")
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
                    f"Column {name!r} has boxes in pixels of an image of {instances.image_size},"
                    f" but image {i} is {image.shape[:2]} (height, width): rescale the boxes first."
                )


def _draw_boxes(axes: Axes, cell: _Cell, class_names: Sequence[str]) -> None:
    """Draws boxes, and their labels next to them as far as there is room."""
    frame = axes.get_xlim()[1], axes.get_ylim()[0]
    boxes = cell.boxes.numpy().clip(0, frame * 2)  # a line outside of the image would be lost
    visible = np.isfinite(boxes).all(axis=1).nonzero()[0]
    pixel = frame[0] / axes.bbox.width  # a pixel of the page, in pixels of the image
    padding = 0.2 * style.SMALL_SIZE * axes.figure.dpi / 72 * pixel
    letters = int(axes.bbox.width / axes.figure.dpi / LETTER_WIDTH)
    most = max(letters - len(" 0.87"), SHORTEST_NAME)
    names = [name if len(name) <= most else f"{name[: most - 1]}…" for name in class_names]
    labels = []
    for i in visible:
        index, correct = int(cell.classes[i]), bool(cell.correct[i])
        colour = style.PALETTE[index % len(style.PALETTE)]
        style.draw_box(axes, boxes[i], colour, dashed=not correct).set_clip_on(False)
        plate = colour if correct else "white"
        label = axes.text(
            *boxes[i, :2],
            names[index] if cell.scores is None else f"{names[index]} {cell.scores[i]:.2f}",
            size=style.SMALL_SIZE,
            color=style.readable_on(plate),
            bbox={"boxstyle": "square,pad=0.2", "fc": plate, "ec": colour, "lw": 0.6},
            va="top",
        )
        label.set_in_layout(False)
        labels.append(label)
    sizes = [label.get_window_extent().size * pixel + 2 * padding for label in labels]
    for label, place in zip(labels, place_labels(boxes[visible], sizes, frame=frame)):
        if place is None:
            label.remove()
        else:
            label.set_position(np.add(place, padding))
