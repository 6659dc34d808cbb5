"""Distillation points over the image that they belong to, coloured by their foreground weight."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..boxes import cxcywh_to_xyxy
from ..structures import Queries
from . import style

OUTLINED = 12
# Inches. A caption needs the least width: with more groups than fit, the page becomes wider.
NARROWEST_PANEL, WIDEST_PANEL, TALLEST_PANEL, COLOUR_BAR = 2.3, 4.5, 6.0, 0.8


@style.page_style
def points_over_image(
    image: np.ndarray,
    points: Queries,
    weights: Tensor,
    *,
    path: str | Path,
    title: str | None = None,
) -> Path:
    """Draws the points of one image, one panel per group; writes and returns ``path``.

    Dots are the centres of points; the boxes of the points with the largest weights are outlined.
    The colours are on one scale from 0 to 1 for all groups, over a darkened image.

    Args:
        image: (H, W, 3) uint8 RGB, unpadded.
        points: of one image (B = 1), N in total. Boxes (cx, cy) without a size get no outlines.
        weights: (N,) foreground weight of each point, in [0, 1], in the order of the points.
        path: the file; its suffix gives the format, and missing folders are made.
        title: above all panels.

    Raises:
        ValueError: points of several images, another number of weights than of points, or an image
            that is not uint8 RGB.
    """
    image = np.asarray(image)
    style.check_image(image)
    if points.boxes.shape[0] != 1:
        raise ValueError(
            f"Points of {points.boxes.shape[0]} images cannot be drawn over one image: choose one"
            " with Queries.select()."
        )
    if weights.shape != (len(points),):
        raise ValueError(
            f"weights has shape {tuple(weights.shape)}, but there are {len(points)} points: give"
            f" ({len(points)},)."
        )
    boxes = points.boxes[0].detach().float().cpu()
    weight = weights.detach().float().cpu().numpy()
    groups = dict(points.groups) or {"": len(points)}
    height, width = image.shape[:2]
    cell = min((style.PAGE_WIDTH - COLOUR_BAR) / len(groups), WIDEST_PANEL)
    cell = max(min(cell, TALLEST_PANEL * width / height), NARROWEST_PANEL)
    tall = min(max(cell * height / width, 0.5), TALLEST_PANEL)
    size = len(groups) * cell + COLOUR_BAR, tall + (1.2 if title else 0.9)
    figure = Figure(size, layout="compressed")
    panels = figure.subplots(1, len(groups), squeeze=False)[0]
    start = 0
    for axes, (name, count) in zip(panels, groups.items()):
        part = slice(start, start + count)
        start += count
        style.show_image(axes, _darkened(image))
        dots = _draw_points(axes, boxes[part], weight[part])
        counted = f"{count} point{'' if count == 1 else 's'}"
        heading = f"{name} ({counted})" if name else counted
        axes.set_title(style.wrap(heading, cell, style.TITLE_SIZE))
        if count:
            mean, highest = weight[part].mean(), weight[part].max()
            axes.set_xlabel(f"mean weight {mean:.2f}, highest {highest:.2f}")
    bar = figure.colorbar(dots, ax=panels, label="foreground weight", fraction=0.05, pad=0.02)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
    if title:
        figure.suptitle(style.wrap(title, figure.get_figwidth(), style.TITLE_SIZE))
    note = "Dots: centres of points, larger and brighter with their weight."
    if boxes.shape[-1] == 4:
        note += f" Outlined: the boxes of the {OUTLINED} points with the largest weights."
    style.footnote(figure, note)
    return style.save(figure, path)


def _darkened(image: np.ndarray) -> np.ndarray:
    """The image darker and with half of its colour, (H, W, 3) uint8, so that dots stand out."""
    rgb = image.astype(np.float32)
    grey = (rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    return ((0.5 * rgb + 0.5 * grey) * 0.7).astype(np.uint8)


def _draw_points(axes: Axes, boxes: Tensor, weight: np.ndarray):
    """Draws the (N, 4) ``cxcywh`` boxes or (N, 2) centres of one group, in [0, 1], with their (N,)
    weights; returns the dots, for the colour bar."""
    size = np.array([axes.get_xlim()[1], axes.get_ylim()[0]])
    order = np.argsort(weight, kind="stable")  # the largest weights last, on top of the others
    heavy = [i for i in order[-OUTLINED:] if weight[i] > 0]
    light = np.setdiff1d(order, heavy)
    centres, areas = boxes[:, :2].numpy() * size, 6 + 55 * weight
    colours = {"cmap": "viridis", "vmin": 0, "vmax": 1}
    looks = (
        (light, {"alpha": 0.75, "edgecolors": "white", "linewidths": 0.35, "zorder": 2}),
        (heavy, {"edgecolors": "black", "linewidths": 0.8, "zorder": 4}),
    )
    for chosen, look in looks:
        x, y = centres[chosen].T
        dots = axes.scatter(x, y, s=areas[chosen], c=weight[chosen], **colours, **look)
    if boxes.shape[-1] == 4:
        corners = cxcywh_to_xyxy(boxes).numpy() * np.tile(size, 2)
        for i in heavy:
            colour = colormaps["viridis"](weight[i])
            style.draw_box(axes, corners[i], colour, width=1.2).set_zorder(3)
    axes.set(xlim=(0, size[0]), ylim=(size[1], 0))
    return dots
