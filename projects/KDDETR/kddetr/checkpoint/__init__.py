"""Checkpoints: read safely, written atomically, compared with the model and loaded."""

from .. import hub  # noqa: F401  (addresses hf://NAME)
from ..errors import CheckpointError
from ..renamed import explain_old_names
from .adapt import adapted
from .assets import asset
from .backbones import backbone_weights, detectron2_names
from .card import FORMAT as CARD_FORMAT
from .card import card_in, detector_in, input_in, read_card
from .checkpointer import Checkpointer, WrapperState
from .classes import AssumedClasses, classes_in, write_card
from .coverage import load_weights
from .described import described
from .files import atomic_write, local_file, read_checkpoint, whole_checkpoints
from .layouts import weights_of
from .loading import deployable, load_pretrained, weight_owner
from .published import converted
from .swin_names import is_swin, swin_names
from .zoo import zoo_address

__all__ = [
    "CARD_FORMAT",
    "AssumedClasses",
    "CheckpointError",
    "Checkpointer",
    "WrapperState",
    "adapted",
    "asset",
    "atomic_write",
    "backbone_weights",
    "card_in",
    "classes_in",
    "converted",
    "deployable",
    "described",
    "detector_in",
    "detectron2_names",
    "input_in",
    "is_swin",
    "load_pretrained",
    "load_weights",
    "local_file",
    "read_card",
    "read_checkpoint",
    "swin_names",
    "weight_owner",
    "weights_of",
    "whole_checkpoints",
    "write_card",
    "zoo_address",
]

__getattr__ = explain_old_names(__name__)
