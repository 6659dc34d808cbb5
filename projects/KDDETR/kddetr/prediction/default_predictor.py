"""A predictor with the habits of Detectron2's DefaultPredictor."""

from pathlib import Path
from typing import Any

import numpy as np

from .predictor import Predictor


class DefaultPredictor(Predictor):
    """Takes the place of Detectron2's class in code that calls it: an image is one (H, W, 3) array
    in **BGR**, as OpenCV reads it, and the result a dictionary with ``instances``.

    Args:
        weights: see :class:`Predictor`; Detectron2's class takes a CfgNode here.
        **options: of :class:`Predictor`.
    """

    def __init__(self, weights: str | Path, **options: Any):
        super().__init__(weights, **{"array_format": "BGR", **options})

    def __call__(self, original_image: np.ndarray) -> dict[str, Any]:
        """``{"instances": Instances}`` of one image; see :meth:`Predictor.__call__`."""
        return {"instances": super().__call__(original_image)}
