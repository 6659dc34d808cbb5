"""The bundled data set, real handwritten digits on real photographs, registered when imported."""

from .dataset import make_quickstart_data, quickstart_root, register_quickstart
from .digits import QuickstartSpec

register_quickstart()

__all__ = ["QuickstartSpec", "make_quickstart_data", "quickstart_root", "register_quickstart"]
