"""Videos by OpenCV: their frames one after the other, and a file that frames are written to."""

import math
import os
from pathlib import Path

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a broken file is one sentence of ours

import cv2
import numpy as np

from ..errors import DatasetError, StorageError

USUAL_RATE = 25.0  # frames a second, where a file does not say it


class VideoReader:
    """The frames of a video.

    Args:
        path: of the file.

    Attributes:
        rate: frames a second.
        frames: how many there are by the file's own account; 0: it does not say.

    Raises:
        DatasetError: it cannot be read.
    """

    def __init__(self, path: Path):
        self._path = path
        self._capture = cv2.VideoCapture(str(path))
        self._next = self._capture.read()[1] if self._capture.isOpened() else None
        if self._next is None:
            raise DatasetError(
                f"The video {path} cannot be read: it is damaged, empty or in a format that this"
                " OpenCV does not decode; write it again, for example with ffmpeg -i VIDEO new.mp4."
            )
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if math.isfinite(rate) and rate > 0 else USUAL_RATE
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames = int(count) if math.isfinite(count) and count > 0 else 0

    def read(self) -> np.ndarray | None:
        """The next frame, (H, W, 3) uint8 RGB; None after the last one."""
        frame, self._next = self._next, None
        if frame is None:
            return None
        self._next = self._capture.read()[1]
        return np.ascontiguousarray(frame[:, :, ::-1])

    def close(self) -> None:
        """Let go of the file."""
        self._capture.release()


class VideoWriter:
    """An MP4 file of frames, which has its name only once it is complete.

    Args:
        path: of the file.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, rate
        self._part = path.with_name(f"{path.stem}.part{os.getpid()}.mp4")
        self._writer: cv2.VideoWriter | None = None
        self._size = 0, 0

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, of the same size as the first one.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # The codec takes even sizes.
            self._size = frame.shape[1] // 2 * 2, frame.shape[0] // 2 * 2
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._part), code, self._rate, self._size)
            if not self._writer.isOpened():
                raise StorageError(
                    f"{self._path} cannot be written as a video: choose a folder that can be"
                    " written, or install an OpenCV with MP4 (opencv-python)."
                )
        width, height = self._size
        self._writer.write(np.ascontiguousarray(frame[:height, :width, ::-1]))

    def close(self, *, complete: bool) -> None:
        """End the file, and give it its name, or remove it where it is not complete."""
        if self._writer is not None:
            self._writer.release()
        if complete and self._part.exists():
            os.replace(self._part, self._path)
        self._part.unlink(missing_ok=True)
