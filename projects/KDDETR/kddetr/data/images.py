"""Image files of all kinds as upright 8-bit RGB, and what their headers say.

Two things go wrong silently in other readers: a photo that lies on its side, and 16-bit pixels of
which a camera fills only 12, which become a black image.
"""

import contextlib
import struct
from collections.abc import Iterator, Sequence
from os import PathLike

import numpy as np
from detectron2.data import detection_utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from ..errors import DatasetError

SEEN = 200  # images of a data set whose headers are read before training starts
DECODED = 16  # 16-bit images of them whose pixels are read too
EXIF_ORIENTATION = 0x0112
SIDEWAYS = (5, 6, 7, 8)  # values of that entry: width and height are exchanged
UNREADABLE = (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError)


def read_image(file_name: str, image_format: str = "RGB", bits: int | None = None) -> np.ndarray:
    """Read an image file as (H, W, 3) uint8, rotated upright according to its EXIF entry.

    Args:
        file_name: a file that Pillow can open; of several frames, the first one is read.
        image_format: order of the channels.
        bits: how many bits of a 16-bit file are used: 12 for pixels from 0 to 4095. The upper 8 of
            these bits are kept. None: 16, or as many as the file itself states.

    Raises:
        DatasetError: the file is missing, truncated, not an image, or has floating-point pixels or
            colours of 16 bits of which fewer than 16 are used.
    """
    try:
        with PathManager.open(file_name, "rb") as file:
            return image_array(Image.open(file), file_name, image_format, bits)
    except DatasetError:
        raise
    except FileNotFoundError as error:
        raise DatasetError(
            f"The image {file_name} does not exist: correct the file name in the data set."
        ) from error
    except UNREADABLE as error:
        raise DatasetError(_broken(file_name, error)) from error


def image_array(
    image: Image.Image, name: str, image_format: str = "RGB", bits: int | None = None
) -> np.ndarray:
    """An image of Pillow as (H, W, 3) uint8, rotated upright according to its EXIF entry.

    Args:
        image: opened, its pixels read or not.
        name: of its file, for messages.
        image_format, bits: see :func:`read_image`.

    Raises:
        DatasetError: it has floating-point pixels, or colours of 16 bits of which fewer are used.
        OSError, ValueError, SyntaxError: its pixels cannot be read.
    """
    raw = _raw_mode(image)
    image.load()  # a TIFF is turned upright by Pillow here, and must not be turned twice
    # Not Pillow's exif_transpose, which stops at unrelated entries that are malformed.
    image = detection_utils._apply_exif_orientation(image)
    if image.mode.startswith("I"):
        # Pillow would silently clip 16-bit pixels at 255, to an almost white image.
        shift = (bits or (12 if raw == "I;12" else 16)) - 8
        image = Image.fromarray((np.asarray(image) >> shift).clip(0, 255).astype(np.uint8))
    elif ";16" in raw and bits not in (None, 16):
        raise DatasetError(
            f"The image {name} has colours of 16 bits, of which only the upper 8 are read, and"
            f" these are black where {bits} bits are used: save it with 8 bits."
        )
    if image.mode == "F":  # Pillow would make an image with values in [0, 1] black
        raise DatasetError(_floating(name))
    # A copy, because torch warns of arrays that it cannot write to.
    return np.array(detection_utils.convert_PIL_to_numpy(image, image_format))


def spread(items: Sequence, count: int) -> list:
    """At most ``count`` of the items, evenly spread."""
    step = max(1, -(-len(items) // count))
    return list(items[::step])


def header_size(file_name: str | PathLike) -> tuple[int, int] | None:
    """Width and height of an image, after rotation, by its header; None where that cannot tell.

    Raises:
        DatasetError: the file is not an image that can be opened.
    """
    with _opened(file_name) as image:
        if image.format == "PNG" and "exif" not in image.info:
            return image.size  # to look for a later entry, Pillow would read all pixels
        turned = _orientation(image) in SIDEWAYS
        if turned and image.format == "TIFF":
            return None  # depends on the version of Pillow
        return image.size[::-1] if turned else image.size


def upright_size(file_name: str | PathLike) -> tuple[int, int]:
    """Width and height of an image, after rotation; its pixels are read where the header cannot
    tell.

    Raises:
        DatasetError: the file is not an image that can be opened.
    """
    if size := header_size(file_name):
        return size
    height, width = read_image(str(file_name)).shape[:2]
    return width, height


def check_size(
    file_name: str | PathLike, found: tuple[int, int], stated: tuple[float, float]
) -> None:
    """Raise DatasetError if an image has another (width, height) than its data set says."""
    if found != stated:
        raise DatasetError(
            f"The image {file_name} is {found[0]} x {found[1]} pixels (rotated upright if its EXIF "
            f"entry says so), but the data set says {stated[0]} x {stated[1]}: correct width and "
            "height there, and check that its boxes are in pixels of the upright image."
        )


def check_bits(files: Sequence[str], bits: int | None, key: str) -> None:
    """Check that the pixels of 16-bit images fill the bits that the mapper expects.

    A single dark image proves nothing, so some images of a data set are judged together.

    Args:
        files: the images of a data set. Some of them are read, evenly spread.
        bits: argument ``bits`` of the mapper that reads them.
        key: the config key of this argument, for the message.

    Raises:
        DatasetError: no pixel reaches the upper 2 of the 16 bits and ``bits`` is None, or a pixel
            has more bits than ``bits``, or an image cannot be opened.
    """
    deep = [file for file in spread(files, SEEN) if _is_deep(file)]
    seen = spread(deep, DECODED)
    used = max((_bits_used(file) for file in seen), default=0)
    if not used or (bits is None and used in (15, 16)) or (bits is not None and used <= bits):
        return
    what = (
        f"The images of more than 8 bits that were looked at ({len(seen)}, such as {seen[0]}) use "
        f"{used} bits, but {bits or 16} are expected, so they would be read too"
    )
    if used > 16:
        raise DatasetError(f"{what} bright: save them with 16 bits.")
    raise DatasetError(
        f"{what} {'bright' if used > (bits or 16) else 'dark'}: set {key}={max(8, used)} (or more, "
        "up to 16, if other images are brighter); images with colours have to be saved with 8 bits."
    )


def _is_deep(file: str) -> bool:
    """Whether a file has integer pixels of more than 8 bits without saying how many are used."""
    with _opened(file) as image:
        raw = _raw_mode(image)
        return ";16" in raw or (image.mode.startswith("I") and raw != "I;12")


def _bits_used(file: str) -> int:
    """The number of bits of the brightest pixel; of colours at least 8."""
    with _opened(file) as image:
        brightest = max(0, int(np.asarray(image).max()))
        return brightest.bit_length() + (0 if image.mode.startswith("I") else 8)


@contextlib.contextmanager
def _opened(file_name: str | PathLike) -> Iterator[Image.Image]:
    """An opened file, whose errors name it."""
    try:
        with Image.open(file_name) as image:
            if image.mode == "F":
                raise DatasetError(_floating(file_name))
            yield image
    except DatasetError:
        raise
    except UNREADABLE as error:
        raise DatasetError(_broken(file_name, error)) from error


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the layout of the pixels in an opened file, such as ``RGB;16B``."""
    arguments = image.tile[0][3] if getattr(image, "tile", None) else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # as in Detectron2's reader: malformed entries of any kind are no orientation
        return None


def _floating(file_name: str | PathLike) -> str:
    return f"The image {file_name} has floating-point pixels: save it with 8 or 16 bits."


def _broken(file_name: str | PathLike, error: Exception) -> str:
    reason = str(error).split("\n")[0]
    return (
        f"The image {file_name} is truncated or broken ({reason}): replace the file, or remove "
        "it from the data set."
    )
