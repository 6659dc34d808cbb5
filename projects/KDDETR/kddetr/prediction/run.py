"""Predictions for many images and videos: read, detected, drawn and written at the same time."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from detectron2.structures import Instances
from PIL import Image

from ..errors import DatasetError
from ..visualization import draw_detections, side_by_side
from .coco_json import CocoJson
from .flow import batches, in_background
from .inputs import Input
from .predictor import Predictor
from .video import VideoReader, VideoWriter

QUALITY = 92  # of JPEG; Pillow's usual 75 leaves smudges around letters
EVERY = 10.0  # seconds between two lines of progress
Out = TypeVar("Out")
Said = Callable[[str], Any]


@dataclass(frozen=True)
class Loaded:
    """An image that has been read.

    Attributes:
        source: its file; of a frame the name of the video and the number of the frame.
        pixels: (H, W, 3) uint8 RGB, upright.
        prepared: the image as each of the detectors takes it.
    """

    source: Input
    pixels: np.ndarray
    prepared: tuple[dict[str, Any], ...]

    @property
    def sizes(self) -> tuple[Any, ...]:
        """Its sizes for the detectors: images with the same sizes may be one batch."""
        return tuple(one["image"].shape for one in self.prepared)


class PredictionRun:
    """Predicts images and videos with one detector, or with several whose pictures are compared.

    Args:
        predictors: by their names in the pictures; the first one counts, and is in ``coco``.
        output: the folder to write to.
        draw: whether pictures and videos are written.
        coco: gets the detections of the first predictor; None: no file of them is wanted.
        say: is given lines about the progress.
        workers: threads that read, and as many that draw.

    Attributes:
        images: how many images and frames were predicted.
        found: how many objects the first detector has found in them.
        failed: a sentence for each file that could not be read.
    """

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        output: Path,
        *,
        draw: bool = True,
        coco: CocoJson | None = None,
        say: Said = print,
        workers: int = 2,
    ):
        self._names, self._predictors = list(predictors), list(predictors.values())
        self._output, self._draw, self._coco, self._say = output, draw, coco, say
        self._workers = workers
        self._ahead = 2 * workers + min(one.batch_size for one in self._predictors)
        every = list(dict.fromkeys(name for one in self._predictors for name in one.classes))
        # A class has one colour in the pictures of all detectors.
        self._colours = [[every.index(name) for name in one.classes] for one in self._predictors]
        self.images = self.found = 0
        self.failed: list[str] = []

    def predict(self, inputs: Sequence[Input]) -> None:
        """Predict all images, and then the videos.

        Raises:
            StorageError, OSError: a file cannot be written.
        """
        pictures = [one for one in inputs if not one.is_video]
        loaded = in_background(self._load, pictures, workers=self._workers, ahead=self._ahead)
        whole = (image for image in loaded if image is not None)
        for _ in self._told(self._background(self._save, whole), len(pictures), "images"):
            pass
        for one in inputs:
            if one.is_video:
                with self._noting_failures():
                    self._predict_video(one)

    def _predict_video(self, source: Input) -> None:
        reader = VideoReader(source.path)
        writer = VideoWriter(self._output / source.drawn, reader.rate)
        frames, complete = 0, False

        def load(number: int) -> Loaded | None:
            frame = reader.read()
            name = f"{source.name}#{number:06d}"
            return None if frame is None else self._loaded(Input(source.path, name), frame)

        # One thread, because frames can only be read one after the other.
        loaded = in_background(load, itertools.count(1), workers=1, ahead=self._ahead)
        try:
            with contextlib.closing(loaded):
                until_end = itertools.takewhile(lambda image: image is not None, loaded)
                drawn = self._background(self._drawn, until_end)
                for picture in self._told(drawn, reader.frames, f"frames of {source.name}"):
                    frames += 1
                    if picture is not None:
                        writer.write(picture)
            complete = True
        finally:
            writer.close(complete=complete)
            reader.close()
        if frames < reader.frames - 1:  # some formats count one too many
            raise DatasetError(
                f"Of the {reader.frames} frames that the video {source.path} announces, only"
                f" {frames} could be read: it may be cut off."
            )

    def _background(
        self, work: Callable[[tuple[Loaded, list[Instances]]], Out], images: Iterable[Any]
    ) -> Iterator[Out]:
        """What is made of the detections in images, in other threads."""
        found = self._detections(images)
        return in_background(work, found, workers=self._workers, ahead=self._ahead)

    def _told(self, done: Iterable[Out], total: int, what: str) -> Iterator[Out]:
        """The same, with a line of progress every now and then."""
        shown = time.monotonic()
        for number, item in enumerate(done, 1):
            yield item
            if time.monotonic() - shown > EVERY:
                self._say(f"{number} of {total or '?'} {what}")
                shown = time.monotonic()

    def _load(self, source: Input) -> Loaded | None:
        with self._noting_failures():
            return self._loaded(source, self._predictors[0].read(source.path))
        return None

    def _loaded(self, source: Input, pixels: np.ndarray) -> Loaded:
        return Loaded(source, pixels, tuple(one.prepare(pixels) for one in self._predictors))

    @contextlib.contextmanager
    def _noting_failures(self) -> Iterator[None]:
        try:
            yield
        except DatasetError as error:
            self.failed.append(str(error))

    def _detections(self, images: Iterable[Loaded]) -> Iterator[tuple[Loaded, list[Instances]]]:
        """Each image with what each of the detectors has found in it."""
        most = min(one.batch_size for one in self._predictors)
        for batch in batches(images, most, lambda image: image.sizes):
            found = [
                one.detect([image.prepared[i] for image in batch])
                for i, one in enumerate(self._predictors)
            ]
            for image, *instances in zip(batch, *found, strict=True):
                self.images += 1
                self.found += len(instances[0])
                if self._coco is not None:
                    self._coco.add(image.source.name, instances[0])
                yield image, instances

    def _save(self, result: tuple[Loaded, list[Instances]]) -> None:
        """Write the picture of an image."""
        picture, file = self._drawn(result), self._output / result[0].source.drawn
        if picture is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file, quality=QUALITY, subsampling=0)

    def _drawn(self, result: tuple[Loaded, list[Instances]]) -> np.ndarray | None:
        """The picture of an image, of several detectors their pictures side by side; None where
        none is wanted.
        """
        if not self._draw:
            return None
        (image, found), panels = result, {}
        parts = zip(self._names, self._predictors, self._colours, found, strict=True)
        for name, predictor, colours, instances in parts:
            count = f"{len(instances)} detection{'' if len(instances) == 1 else 's'}"
            panels[f"{name}: {count}"] = draw_detections(
                image.pixels, instances, class_names=predictor.classes, colours=colours
            )
        return side_by_side(panels) if len(panels) > 1 else next(iter(panels.values()))
