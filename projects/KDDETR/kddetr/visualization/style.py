"""What the pictures share: sizes and colours, the page that they are drawn on, and the file.

Sizes are for a page 10 inches wide, whose smallest text has 7 points: on a web page that shows the
picture 1000 pixels wide, that text is about 10 pixels high.
"""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.style import context

PAGE_WIDTH = 10.0  # inches
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 10.0, 8.5, 7.0  # points
MUTED = "#5a5a5a"
SETTINGS = {
    "figure.dpi": 160,
    "font.size": TEXT_SIZE,
    "axes.titlesize": TITLE_SIZE,
    "axes.titleweight": "bold",
    "figure.titlesize": TITLE_SIZE,
    "figure.labelsize": SMALL_SIZE,
    "axes.edgecolor": "#222222",
    "axes.linewidth": 0.6,
    "grid.color": "#dddddd",
    "text.parse_math": False,  # a file name or a class may have a dollar sign
}

# The colours of Okabe and Ito without black, which outlines boxes, and three more that can be told
# apart under simulated colour blindness. Labels, markers and dashes repeat what the colours say.
PALETTE = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442"),
    *("#882255", "#a6f0c6", "#8c5a2b"),
)


# A decorator or context manager: draws with the settings above instead of the user's.
page_style = context(["default", SETTINGS])


def save(figure: Figure, path: str | Path) -> Path:
    """Writes the figure without its white margins; makes missing folders, and returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The usual JPEG quality of 75 leaves smudges around text.
    jpeg = {"pil_kwargs": {"quality": 92}} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    figure.savefig(path, dpi=figure.dpi, bbox_inches="tight", pad_inches=0.1, **jpeg)
    return path


def wrap(text: str, width: float, size: float = TEXT_SIZE) -> str:
    """Text in lines of about ``width`` inches at a size in points.

    The width is estimated; lines come out rather short.
    """
    return textwrap.fill(text, max(int(width * 72 / (0.62 * size)), 8))


def footnote(figure: Figure, text: str) -> None:
    """Small print below the panels, from the left edge of the figure."""
    text = wrap(text, figure.get_figwidth(), 0.92 * SMALL_SIZE)
    figure.supxlabel(text, x=0.01, ha="left", color=MUTED, linespacing=1.4)


def show_image(axes: Axes, image: np.ndarray) -> None:
    """Draws the image; the units of the axes become its pixels, with (0, 0) in the upper left."""
    height, width = image.shape[:2]
    axes.imshow(image, extent=(0, width, height, 0), interpolation="lanczos", resample=True)
    axes.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axes.spines[:].set_visible(False)


def draw_box(axes: Axes, box: np.ndarray, colour, *, width: float = 1.1, dashed: bool = False):
    """Outlines an ``xyxy`` box; the line has a black edge, so that it is visible on any image."""
    x0, y0, x1, y1 = box
    line = {"edgecolor": colour, "linewidth": width, "linestyle": (0, (3, 2)) if dashed else "-"}
    edge = [withStroke(linewidth=width + 0.9, foreground="black")]
    patch = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, path_effects=edge, **line)
    return axes.add_patch(patch)


def readable_on(colour: str) -> str:
    """Black on a light colour, white on a dark one."""
    return "black" if np.dot(to_rgb(colour), (0.299, 0.587, 0.114)) > 0.4 else "white"


def check_image(image: np.ndarray) -> None:
    """Raises ValueError unless the image is (H, W, 3) uint8 and has a pixel."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"An image to draw on must be (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}:"
            " kddetr.data.read_image reads any image file as such an array."
        )
