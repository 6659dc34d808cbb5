"""The files of a folder, listed once, and the split that a path names."""

import re
from collections import Counter
from functools import cached_property
from pathlib import Path, PurePath

from ..folders import files_below, image_suffixes

_WORDS = {
    **dict.fromkeys(("train", "training", "trainval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def split_named(path: PurePath) -> str | None:
    """The split that a relative path names, such as ``val`` for ``valid/images/1.jpg``; None for
    none. The file's own name counts first, then the innermost folder.
    """
    for part in (path.stem, *reversed(path.parts[:-1])):
        for word in re.findall("[a-z]+", part.lower()):
            if word in _WORDS:
                return _WORDS[word]
    return None


class Tree:
    """All files below a folder, hidden ones left out.

    Args:
        root: an absolute path of a folder.
    """

    def __init__(self, root: Path):
        self.root = root
        self.files = sorted(files_below(root))

    def of_kind(self, *suffixes: str) -> list[Path]:
        """The files with one of these suffixes, in lower case, such as ``.json``."""
        return [file for file in self.files if file.suffix.lower() in suffixes]

    def relative(self, path: Path) -> PurePath:
        """A path relative to the folder."""
        return path.relative_to(self.root)

    @cached_property
    def images(self) -> list[Path]:
        """The files that Pillow can read by their suffix."""
        return self.of_kind(*image_suffixes())

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """The files by their names without folders."""
        table: dict[str, list[Path]] = {}
        for file in self.files:
            table.setdefault(file.name, []).append(file)
        return table

    def contents(self) -> str:
        """What is in the folder, in words: ``12 .jpg and 1 .txt files``."""
        if not self.files:
            return "no file at all"
        counts = Counter(file.suffix.lower() or "(no suffix)" for file in self.files)
        words = [f"{count} {suffix}" for suffix, count in counts.most_common(5)]
        return f"{', '.join(words)}{', and other' if len(counts) > 5 else ''} files"
