"""Folders of labelled images, in the layouts that labelling programs export.

:func:`find_data` finds the splits of a folder, whatever its layout, and gives each as a file in
COCO's format and a folder of images. The user's own folder is never written to.
"""

from .find import find_data
from .found import DataFolder, Split

__all__ = ["DataFolder", "Split", "find_data"]
