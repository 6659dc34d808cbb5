"""The bundled data set, handwritten digits on photographs; importing this package registers it."""

from .dataset import make_quickstart_data, quickstart_root, register_quickstart
from .digits import QuickstartSpec

register_quickstart()

__all__ = ["QuickstartSpec", "make_quickstart_data", "quickstart_root", "register_quickstart"]
