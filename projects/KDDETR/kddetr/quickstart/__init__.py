"""The bundled data set, handwritten digits on photographs; importing this package registers it."""

from .dataset import (
    first_images,
    make_quickstart_data,
    other_images,
    quickstart_root,
    register_quickstart,
)
from .digits import QuickstartSpec

register_quickstart()

__all__ = [
    "QuickstartSpec",
    "first_images",
    "make_quickstart_data",
    "other_images",
    "quickstart_root",
    "register_quickstart",
]
