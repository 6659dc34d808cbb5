"""Files that come with the package, as ``kddetr://name`` wherever Detectron2 takes a path."""

import io
from pathlib import Path

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

PREFIX = "kddetr://"
FOLDER = Path(__file__).parents[1] / "assets"


def asset(path: str) -> Path:
    """The file that ``kddetr://name`` stands for."""
    return FOLDER / path.removeprefix(PREFIX)


class _AssetHandler(PathHandler):
    """Lets Detectron2's path manager read bundled files; opening one to write is an OSError."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, **kwargs) -> str:
        return str(asset(path))

    def _open(self, path: str, mode: str = "r", **kwargs):
        if mode not in ("r", "rt", "rb"):
            raise io.UnsupportedOperation(
                f"{path} is a file of the package and can only be read, not opened with mode"
                f" {mode!r}: write to a path of your own."
            )
        return open(asset(path), mode)


PathManager.register_handler(_AssetHandler(), allow_override=True)
