"""One hand for all pictures: page width, type sizes, colours, and how a figure gets into a file.

Sizes are meant for a page 10 inches wide, on which the smallest text has 7 points: shown 1000
pixels wide, as in a README, it is still about 10 pixels high.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAGE_WIDTH = 10.0  # inches
DPI = 160
TITLE_SIZE = 10.0  # points, as all sizes of text
TEXT_SIZE = 8.5
SMALL_SIZE = 7.0
INK = "#222222"
MUTED = "#5a5a5a"
GRID = "#dddddd"

# Okabe and Ito's colours without black, which is the outline, and three more that keep their
# distance under simulated colour blindness. Labels, markers and dashes repeat what colours say.
PALETTE = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#f0e442",
    "#882255",
    "#a6f0c6",
    "#8c5a2b",
)


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of that size in inches, known to no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: str | Path) -> Path:
    """Writes the figure, in the format that the suffix says, and makes the folders it needs."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {}
    if path.suffix.lower() in (".jpg", ".jpeg"):
        # Pillow's usual quality of 75 leaves smudges around text.
        options["pil_kwargs"] = {"quality": 92}
    figure.savefig(path, dpi=DPI, **options)
    return path


def text_size(figure: Figure, text: str, points: float) -> tuple[float, float]:
    """Width and height in inches of one line of text; all lines of a size are equally high."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=points)
    renderer = figure.canvas.get_renderer()
    width = renderer.get_text_width_height_descent(text, font, ismath=False)[0]
    height = renderer.get_text_width_height_descent("Mg", font, ismath=False)[1]
    return width / figure.dpi, height / figure.dpi


def wrap(figure: Figure, text: str, points: float, width: float) -> list[str]:
    """``text`` in lines at most ``width`` inches wide; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_size(figure, longer, points)[0] <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def class_colour(index: int) -> str:
    """The colour of a class or a line; they repeat after ten."""
    return PALETTE[index % len(PALETTE)]


def readable_on(colour: str) -> str:
    """Black or white, whichever stands out more on that colour."""
    from matplotlib.colors import to_rgb

    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def outline(width: float, colour: str = "black") -> list:
    """Path effects that edge a line or text, so that it shows on any photograph."""
    from matplotlib.patheffects import withStroke

    return [withStroke(linewidth=width, foreground=colour)]


def show_image(axes: Axes, image: np.ndarray) -> None:
    """The image over the whole of the axes, whose units become its pixels."""
    axes.imshow(
        image,
        extent=(0, image.shape[1], image.shape[0], 0),
        aspect="auto",
        interpolation="lanczos",
        resample=True,
    )
    axes.set_axis_off()


def check_image(image: np.ndarray) -> None:
    """Raises ValueError unless the image is (H, W, 3) uint8 and has a pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"An image to draw on must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}:"
            " kddetr.data.read_image makes one of any file."
        )
