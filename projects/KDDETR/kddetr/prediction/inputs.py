"""The images and videos that a user names, and the files that their predictions are written to."""

import glob
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..data.folders import files_below, image_suffixes
from ..errors import DatasetError, StorageError, did_you_mean

VIDEOS = {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv"}


@dataclass(frozen=True)
class Input:
    """An image or video file.

    Attributes:
        path: where it is.
        name: its path below the folder that all inputs are in, with "/".
        drawn: the same for the file with the detections drawn into it.
    """

    path: Path
    name: str
    drawn: str = ""

    @property
    def is_video(self) -> bool:
        """Whether its suffix is that of a video."""
        return self.path.suffix.lower() in VIDEOS


def find_inputs(paths: Sequence[str]) -> list[Input]:
    """The images and videos that paths name, each once, in their order.

    Args:
        paths: of files, of folders (everything below them counts), or patterns such as
            ``"frames/*.png"`` and ``"data/**/*.jpg"``.

    Raises:
        DatasetError: a path leads to nothing, or to a file that is neither.
    """
    files: dict[Path, None] = {}
    roots = []
    for path in paths:
        found, root = _below(os.path.expanduser(path))
        files |= dict.fromkeys(found)
        roots.append(root)
    whole = Path(os.path.commonpath([root.absolute() for root in roots]))
    names = [file.absolute().relative_to(whole).as_posix() for file in files]
    drawn = _drawn_names(names)
    return [Input(*one) for one in zip(files, names, drawn, strict=True)]


def _drawn_names(names: Sequence[str]) -> list[str]:
    """The names of the files with detections, each once: a.jpg for a.png; where there is a.tif as
    well, a.png.jpg and a.tif.jpg.
    """
    endings = [_ending(name) for name in names]
    pairs = list(zip(names, endings, strict=True))
    drawn, before = [str(PurePosixPath(name).with_suffix(end)) for name, end in pairs], None
    while drawn != before:  # a longer name may be the short one of another file
        before, counts = drawn, Counter(drawn)
        both = zip(drawn, pairs, strict=True)
        drawn = [one if counts[one] == 1 else name + end for one, (name, end) in both]
    return drawn


def _ending(name: str) -> str:
    """The suffix of a picture or video with detections. A picture is a JPEG whatever the image is,
    because encoding a PNG takes many times as long as detecting in it.
    """
    return ".mp4" if PurePosixPath(name).suffix.lower() in VIDEOS else ".jpg"


def _below(path: str) -> tuple[list[Path], Path]:
    """(the files that a path names, the folder that they are in)."""
    given = Path(path)
    if given.is_dir():
        found = sorted(file for file in files_below(given) if _is_known(file))
        if not found:
            raise DatasetError(f"The folder {path} holds no image and no video.")
        return found, given
    if given.exists():
        if not _is_known(given):
            raise DatasetError(
                f"{path} is neither an image nor a video by its name: name files such as .jpg,"
                f" .png or .webp, or {', '.join(sorted(VIDEOS))}."
            )
        return [given], given.absolute().parent
    if glob.has_magic(path):
        found = sorted(Path(one) for one in glob.glob(path, recursive=True))
        found = [file for file in found if file.is_file() and _is_known(file)]
        if not found:
            raise DatasetError(f"No image and no video matches {path}.")
        return found, Path(os.path.commonpath([file.absolute().parent for file in found]))
    folder = given.absolute().parent
    present = os.listdir(folder) if folder.is_dir() else []
    hint = did_you_mean(given.name, present, otherwise="check the path.", count=3)
    raise DatasetError(f"{path} does not exist; {hint}")


def _is_known(file: Path) -> bool:
    return file.suffix.lower() in image_suffixes() or file.suffix.lower() in VIDEOS


def check_targets(inputs: Sequence[Input], targets: Sequence[Path], *, force: bool) -> None:
    """Refuse to write over a file that is there.

    Args:
        inputs: which are never written over.
        targets: the files that will be written.
        force: whether other files may be.

    Raises:
        StorageError: one of them exists.
    """
    own = {os.path.realpath(one.path) for one in inputs}
    for target in targets:
        if os.path.realpath(target) in own:
            raise StorageError(
                f"{target} is one of the images themselves: name another folder with --output."
            )
        if target.exists() and not force:
            raise StorageError(
                f"{target} exists: name another folder with --output, or add --force to overwrite."
            )
