"""Distillation points over the image they are asked about, and how much each of them counts.

Dots are centres of points, coloured and sized by their foreground weight; the boxes of the heaviest
are outlined.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..boxes import cxcywh_to_xyxy
from ..structures import Queries
from . import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OUTLINED = 12
LARGEST_PANEL = 4.4  # inches, as all lengths here
LEAST_PANEL = 2.3
TALLEST_PANEL = 6.0
GAP = 0.15
MARGIN = 0.12
BAR = 0.75


def points_over_image(
    image: np.ndarray,
    points: Queries,
    weights: Tensor,
    *,
    path: str | Path,
    title: str | None = None,
) -> Path:
    """Draws the points of one image, one panel a group, and writes the picture to ``path``.

    The photograph is subdued, so that the bright colours are those of the weights, on one scale
    from 0 to 1 for all groups.

    Args:
        image: (H, W, 3) uint8 RGB, unpadded.
        points: of one image (B = 1). Boxes that are centres alone get no outlines.
        weights: (N,) foreground weight of each point, in [0, 1], in the order of the points.
        path: the file; its suffix says the format, and missing folders are made.
        title: above all panels.

    Returns:
        the path.

    Raises:
        ValueError: points of several images, other than one weight a point, or an image that is not
            uint8 RGB.
    """
    image = np.asarray(image)
    style.check_image(image)
    if points.boxes.shape[0] != 1:
        raise ValueError(
            f"Points of {points.boxes.shape[0]} images cannot be drawn over one: choose one with"
            " Queries.select()."
        )
    if weights.shape != (len(points),):
        raise ValueError(
            f"Weights of shape {tuple(weights.shape)} do not go with {len(points)} points: give"
            f" ({len(points)},)."
        )
    boxes = points.boxes[0].detach().float().cpu()
    weight = weights.detach().float().cpu().numpy()
    groups = dict(points.groups) or {"": len(points)}
    figure, panels, bar = _page(image, len(groups), title)
    start = 0
    for axes, (name, count) in zip(panels, groups.items(), strict=True):
        part = slice(start, start + count)
        start += count
        style.show_image(axes, _subdued(image))
        _draw(axes, boxes[part], weight[part], size=image.shape[:2])
        _captions(axes, name, weight[part])
    _colour_bar(figure, bar)
    note = "Dots: centres of points, larger and brighter with their weight."
    if boxes.shape[-1] == 4:
        note += f" Outlined: the boxes of the {OUTLINED} heaviest."
    _note(figure, note)
    return style.save(figure, path)


def _page(image: np.ndarray, panels: int, title: str | None) -> tuple[Figure, list[Axes], Axes]:
    """Figure, axes of the panels and of the colour bar."""
    room = style.PAGE_WIDTH - 2 * MARGIN - BAR - GAP * (panels - 1)
    # Below the least width captions would run into each other: the page gets wider instead.
    widest = max(min(room / panels, LARGEST_PANEL), LEAST_PANEL)
    width = min(widest, TALLEST_PANEL * image.shape[1] / image.shape[0])
    slot = max(width, LEAST_PANEL)
    height = width * image.shape[0] / image.shape[1]
    head, foot = (0.5 if title else 0.22), 0.64
    page_w = 2 * MARGIN + panels * slot + GAP * (panels - 1) + BAR
    page_h = MARGIN + head + height + foot
    figure = style.new_figure(page_w, page_h)

    def axes(left: float, wide: float) -> Axes:
        return figure.add_axes((left / page_w, foot / page_h, wide / page_w, height / page_h))

    if title:
        figure.text(
            MARGIN / page_w,
            1 - MARGIN / page_h,
            title,
            ha="left",
            va="top",
            size=style.TITLE_SIZE,
            color=style.INK,
            parse_math=False,
        )
    middle = (slot - width) / 2
    drawn = [axes(MARGIN + i * (slot + GAP) + middle, width) for i in range(panels)]
    return figure, drawn, axes(page_w - MARGIN - BAR + 0.12, 0.13)


def _note(figure: Figure, text: str) -> None:
    """Small print at the foot of the page, two lines at most on the narrowest one."""
    width, height = figure.get_size_inches()
    lines = style.wrap(figure, text, style.SMALL_SIZE, width - 2 * MARGIN)
    for i, line in enumerate(reversed(lines)):
        figure.text(
            MARGIN / width,
            (0.09 + 0.14 * i) / height,
            line,
            size=style.SMALL_SIZE,
            color=style.MUTED,
        )


def _subdued(image: np.ndarray) -> np.ndarray:
    """The image darker and with half of its colour, (H, W, 3) uint8, for dots to stand out."""
    rgb = image.astype(np.float32)
    grey = (rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[..., None]
    return ((0.5 * rgb + 0.5 * grey) * 0.7).astype(np.uint8)


def _draw(axes: Axes, boxes: Tensor, weight: np.ndarray, *, size: tuple[int, int]) -> None:
    """Dots and outlines of one group; ``boxes`` (N, 4) or (N, 2) in [0, 1]."""
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    height, width = size
    order = np.argsort(weight, kind="stable")  # the heaviest last, so on top
    heavy = [i for i in order[-OUTLINED:] if weight[i] > 0]
    colours = colormaps["viridis"](weight)
    centres = boxes[:, :2].numpy() * (width, height)
    areas = 6 + 55 * weight
    faint = np.setdiff1d(order, heavy)
    axes.scatter(
        *centres[faint].T,
        s=areas[faint],
        c=colours[faint],
        alpha=0.75,
        edgecolors="white",
        linewidths=0.35,
        zorder=2,
    )
    if boxes.shape[-1] == 4:
        corners = cxcywh_to_xyxy(boxes).numpy() * (width, height, width, height)
        for i in heavy:
            x0, y0, x1, y1 = corners[i]
            axes.add_patch(
                Rectangle(
                    (x0, y0),
                    x1 - x0,
                    y1 - y0,
                    fill=False,
                    edgecolor=colours[i],
                    linewidth=1.2,
                    path_effects=style.outline(2.2),
                    zorder=3,
                )
            )
    axes.scatter(
        *centres[heavy].T,
        s=areas[heavy],
        c=colours[heavy],
        edgecolors="black",
        linewidths=0.8,
        zorder=4,
    )
    axes.set(xlim=(0, width), ylim=(height, 0))


def _captions(axes: Axes, name: str, weight: np.ndarray) -> None:
    count = f"{len(weight)} point{'' if len(weight) == 1 else 's'}"
    axes.set_title(
        f"{name} ({count})" if name else count,
        size=style.TITLE_SIZE,
        weight="bold",
        color=style.INK,
        pad=5,
        parse_math=False,
    )
    if len(weight):
        caption = f"mean weight {weight.mean():.2f}, highest {weight.max():.2f}"
        axes.annotate(
            caption,
            (0.5, 0),
            (0, -5),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            size=style.TEXT_SIZE,
            color=style.INK,
        )


def _colour_bar(figure: Figure, axes: Axes) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "viridis"), cax=axes)
    bar.set_label("foreground weight", size=style.TEXT_SIZE, color=style.INK)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1])
    bar.ax.tick_params(labelsize=style.TEXT_SIZE, colors=style.INK, length=2.5)
    bar.outline.set_linewidth(0.5)
