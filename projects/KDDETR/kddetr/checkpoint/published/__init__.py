"""Published detectors' files: recognised by their names, renamed, fitted to a model."""

from .adapt import adapted
from .convert import Converted, converted
from .names import rename
from .origins import ORIGINS, Origin

__all__ = ["ORIGINS", "Converted", "Origin", "adapted", "converted", "rename"]
