"""Detectors as files that run without this project: ONNX, torch.export and TorchScript."""

from .compare import Comparison, Run, compare, latencies
from .files import ENDINGS, FORMATS, export_file, open_file
from .graph import DetectionGraph
from .square import SquareGraph
from .stock import StockGraph

__all__ = [
    "ENDINGS",
    "FORMATS",
    "Comparison",
    "DetectionGraph",
    "Run",
    "SquareGraph",
    "StockGraph",
    "compare",
    "export_file",
    "latencies",
    "open_file",
]
