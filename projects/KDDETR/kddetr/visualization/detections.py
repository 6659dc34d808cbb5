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
LABEL_LETTER, SCORE_LETTERS = 0.066, 5  # width of a letter of a label; letters of " 0.87"


@style.page_style()
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
    width = min(max(style.PAGE_WIDTH / len(columns), NARROWEST_CELL), WIDEST_CELL)
    shapes = [image.shape[0] / image.shape[1] for image in images]
    heights = [width * np.clip(shape, LOWEST_CELL, TALLEST_CELL) for shape in shapes]
    widths = [min(height / shape, width) for height, shape in zip(heights, shapes)]
    width = min(max(*widths, NARROWEST_CELL), width)
    # Room for row titles on the left, for captions, and for column names and the footnote.
    size = width * len(columns) + (0.25 if titles else 0), sum(heights) + 0.25 * len(images) + 0.5
    figure = Figure(size, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.05, h_pad=0.04, wspace=0, hspace=0)
    grid = figure.subplots(len(images), len(columns), squeeze=False, height_ratios=heights)
    labels = []
    for j, (name, column) in enumerate(columns.items()):
        grid[0, j].set_title(style.wrap(name, width, style.TITLE_SIZE))
        rows = zip(grid[:, j], images, widths, column, first, strict=True)
        for axes, image, room, instances, truth in rows:
            cell = _Cell.of(instances, score_threshold, truth if has_truth else None)
            if len(cell.classes) and (highest := int(cell.classes.max())) >= len(class_names):
                raise ValueError(
                    f"Column {name!r} has class {highest}, but class_names has"
                    f" {len(class_names)} names."
                )
            style.show_image(axes, image)
            axes.set_xlabel(cell.caption)
            letters = max(int(room / LABEL_LETTER) - SCORE_LETTERS, 8)
            names = [n if len(n) <= letters else f"{n[: letters - 1]}…" for n in class_names]
            labels.append((axes, *_draw_boxes(axes, cell, names)))
    for axes, title, height in zip(grid[:, 0], titles or (), heights):
        axes.set_ylabel(style.wrap(title, height))
    note = f"Detections with a score of {score_threshold:g} or more."
    if has_truth:
        note += f" Solid: finds an object of its class, IoU {MATCH_IOU:g} or more."
        note += " Dashed, white label: false (no such object, or one that was already found)."
    style.footnote(figure, note)
    figure.draw_without_rendering()  # the place of a label depends on the final size of the image
    for axes, boxes, texts in labels:
        _arrange_labels(axes, boxes, texts)
    return style.save(figure, path)


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
        found = instances.to("cpu")
        if found.has("pred_boxes"):
            found = found[found.scores >= threshold]
            found = found[found.scores.argsort(descending=True, stable=True)]
            boxes, classes = found.pred_boxes.tensor.detach(), found.pred_classes
            scores, noun = found.scores.detach(), "detection"
        else:
            boxes, classes, scores, noun = found.gt_boxes.tensor, found.gt_classes, None, "object"
        if truth is None or scores is None:
            correct = torch.ones(len(boxes), dtype=torch.bool)
            caption = f"{len(boxes)} {noun}{'' if len(boxes) == 1 else 's'}"
            return cls(boxes, classes, scores, correct, caption)
        answers = {"boxes": boxes, "scores": scores, "classes": classes}
        matching = match_detections(**answers, gt_boxes=truth.boxes, gt_classes=truth.classes)
        return cls(boxes, classes, scores, matching.correct, str(matching))


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


def _draw_boxes(axes: Axes, cell: _Cell, names: Sequence[str]) -> tuple[np.ndarray, list]:
    """Draws boxes and labels; returns the boxes, (N, 4), and their labels, still to be arranged."""
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    # A line outside of the image would be lost.
    boxes = cell.boxes.numpy().clip(0, (width, height, width, height))
    visible = np.isfinite(boxes).all(axis=1)
    labels = []
    for i in visible.nonzero()[0]:
        index, correct = int(cell.classes[i]), bool(cell.correct[i])
        colour = style.PALETTE[index % len(style.PALETTE)]
        style.draw_box(axes, boxes[i], colour, dashed=not correct).set_clip_on(False)
        plate = colour if correct else "white"
        name = names[index]
        label = axes.text(
            *boxes[i, :2],
            name if cell.scores is None else f"{name} {cell.scores[i]:.2f}",
            size=style.SMALL_SIZE,
            color=style.readable_on(plate),
            bbox={"boxstyle": "square,pad=0.2", "fc": plate, "ec": colour, "lw": 0.6},
            va="top",
        )
        label.set_in_layout(False)
        labels.append(label)
    return boxes[visible], labels


def _arrange_labels(axes: Axes, boxes: np.ndarray, labels: list) -> None:
    """Moves each label next to its box, and removes the labels for which there is no room."""
    frame = (axes.get_xlim()[1], axes.get_ylim()[0])
    unit = frame[0] / axes.bbox.width  # image pixels per pixel of the page
    plates = [label.get_bbox_patch().get_window_extent() for label in labels]
    sizes = np.array([(plate.width, plate.height) for plate in plates]) * unit
    for label, plate, place in zip(labels, plates, place_labels(boxes, sizes, frame=frame)):
        if place is None:
            label.remove()
            continue
        text = label.get_window_extent()
        border = np.array([text.x0 - plate.x0, plate.y1 - text.y1]) * unit
        label.set_position(np.add(place, border))
