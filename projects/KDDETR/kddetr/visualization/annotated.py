"""An image of its full size with the detections in it, drawn in milliseconds.

Pillow draws, because matplotlib takes a few tenths of a second for a picture, and OpenCV writes
only ASCII letters.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from detectron2.structures import Instances
from PIL import Image, ImageDraw, ImageFont

from . import style
from .labels import place_labels

LEAST_SIDE = 640  # pixels of the long side; a smaller image is enlarged, so that labels fit
LETTERS = 36  # times which the size of the letters fits into the short side of an image
THINNEST_LETTERS, WIDEST_LETTERS = 12, 36  # pixels
PADDING = 2  # pixels around the letters of a label


def draw_detections(
    image: np.ndarray,
    found: Instances,
    *,
    class_names: Sequence[str],
    colours: Sequence[int] | None = None,
) -> np.ndarray:
    """An image with a box and a label for each detection; the best are drawn last, on top.

    Args:
        image: (H, W, 3) uint8 RGB. One whose long side has less than 640 pixels is enlarged by a
            whole number.
        found: ``pred_boxes`` in pixels of the image, ``scores`` and ``pred_classes``.
        class_names: the name of each class.
        colours: the number of the colour of each class; by default that of the class.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        ValueError: the image is not uint8 RGB.
    """
    style.check_image(image)
    picture, times = _enlarged(Image.fromarray(image))
    draw, font = ImageDraw.Draw(picture), _font(_letters(picture))
    order = found.scores.argsort(descending=True, stable=True).tolist()
    boxes = found.pred_boxes.tensor.detach().float().cpu().numpy()[order] * times
    frame = picture.width, picture.height
    boxes = np.nan_to_num(boxes).clip(0, frame * 2)
    names, plates, texts, sizes = class_names, [], [], []
    for i in order:
        number = int(found.pred_classes[i])
        colour = colours[number] if colours is not None else number
        plates.append(style.PALETTE[colour % len(style.PALETTE)])
        texts.append(f"{names[number]} {float(found.scores[i]):.2f}")
        left, _, right, bottom = draw.textbbox((0, 0), texts[-1], font=font)
        sizes.append((right - left + 2 * PADDING, bottom + 2 * PADDING))
    width = max(1, round(min(frame) / 240))
    for box, plate in reversed(list(zip(boxes, plates, strict=True))):
        _outline(draw, box, plate, width)
    places = place_labels(boxes, np.array(sizes).reshape(-1, 2), frame=frame)
    for text, plate, size, place in zip(texts, plates, sizes, places, strict=True):
        if place is not None:
            draw.rectangle((*place, place[0] + size[0], place[1] + size[1]), fill=plate)
            corner = place[0] + PADDING, place[1] + PADDING
            draw.text(corner, text, font=font, fill=style.readable_on(plate))
    return np.asarray(picture)


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Pictures of one height next to each other, each below its title; (H, W, 3) uint8 RGB."""
    font = _font(_letters(Image.fromarray(next(iter(panels.values())))))
    margin = PADDING * 3
    bar = font.getbbox("Ag|")[3] + 2 * margin
    columns = []
    for title, panel in panels.items():
        column = Image.new("RGB", (panel.shape[1], panel.shape[0] + bar), "white")
        column.paste(Image.fromarray(panel), (0, bar))
        draw = ImageDraw.Draw(column)
        while font.getlength(title) > panel.shape[1] - 2 * margin and len(title) > 1:
            title = f"{title.removesuffix('…')[:-1]}…"
        draw.text((margin, margin), title, font=font, fill="black")
        columns += [np.asarray(column), np.full((column.height, margin, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def _enlarged(picture: Image.Image) -> tuple[Image.Image, int]:
    times = max(1, LEAST_SIDE // max(picture.size))
    if times == 1:
        return picture.copy(), 1
    size = picture.width * times, picture.height * times
    return picture.resize(size, Image.Resampling.BICUBIC), times


def _letters(picture: Image.Image) -> int:
    """The size of letters in pixels."""
    return min(max(min(picture.size) // LETTERS, THINNEST_LETTERS), WIDEST_LETTERS)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of many languages."""
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return ImageFont.truetype(str(file), size)


def _outline(draw: ImageDraw.ImageDraw, box: np.ndarray, colour: str, width: int) -> None:
    """The line of a box, with a dark edge on both sides, so that it is seen on every image."""
    x0, y0, x1, y1 = (round(float(v)) for v in box)
    outer = (x0 - 1, y0 - 1, max(x1, x0) + 1, max(y1, y0) + 1)
    draw.rectangle(outer, outline="black", width=width + 2)
    draw.rectangle((x0, y0, max(x1, x0), max(y1, y0)), outline=colour, width=width)
