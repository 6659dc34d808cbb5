"""A real-time detector as a plain folder of the package ``transformers``, which needs nothing of
this project: ``AutoModelForObjectDetection.from_pretrained(folder)``.
"""

import copy
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import StorageError, UsageError
from .package import transformers_package

if TYPE_CHECKING:
    from .detector import HuggingFaceDetector

RESCALE = 255.0


def save_folder(detector: "HuggingFaceDetector", folder: str, classes: Sequence[str]) -> None:
    """Write weights, configuration and image processor; see :meth:`.HuggingFaceDetector.save`."""
    if classes and len(classes) != detector.num_classes:
        raise UsageError(
            f"{len(classes)} names were given for {detector.num_classes} classes: name each one."
        )
    target = Path(folder)
    if target.exists() and not (target / "config.json").is_file() and any(target.iterdir()):
        raise StorageError(f"{folder} holds other files: name a new folder.")
    stock = detector.stock
    before = copy.deepcopy(stock.config)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written beside it and then renamed, so that a folder is always whole.
    written = Path(tempfile.mkdtemp(prefix=f"{target.name}.tmp-", dir=target.parent))
    try:
        if classes:
            stock.config.id2label = dict(enumerate(classes))
            stock.config.label2id = {name: i for i, name in enumerate(classes)}
        stock.save_pretrained(written)
        _processor(detector).save_pretrained(written)
        written.chmod(0o777 & ~_umask())
        if target.exists():
            shutil.rmtree(target)
        os.replace(written, target)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written ({error.strerror or error}): make room, or choose another"
            " folder."
        ) from error
    finally:
        stock.config = before
        shutil.rmtree(written, ignore_errors=True)


def _processor(detector: "HuggingFaceDetector") -> object:
    """The package's image processor that prepares an image as the detector does."""
    height, width = detector.image_size
    mean, std = (
        [value / RESCALE for value in values.flatten().tolist()]
        for values in (detector.pixel_mean, detector.pixel_std)
    )
    return transformers_package().RTDetrImageProcessor(
        size={"height": height, "width": width},
        do_rescale=True,
        rescale_factor=1 / RESCALE,
        do_normalize=mean != [0.0] * 3 or std != [1.0] * 3,
        image_mean=mean,
        image_std=std,
        do_pad=False,
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
