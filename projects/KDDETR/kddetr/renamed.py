"""Names that modules, classes and functions of this package had in earlier versions."""

from collections.abc import Callable
from typing import Any

from .errors import RenamedError

_DETR = (
    *("attention", "checkpointing", "criterion", "dab_detr", "decoder", "deformable_attention"),
    *("deformable_detr", "denoising", "dino", "encoder", "heads", "matcher", "memory", "neck"),
    *("position_encoding", "postprocess", "proposals", "queries", "transformer"),
)
_CONFIG = ("calls", "defaults", "overrides", "own_targets", "renamed", "scaling", "schema")

MODULES = {
    **{f"kddetr.detectors.{name}": f"kddetr.detectors.detr.{name}" for name in _DETR},
    "kddetr.checkpoint.vocabulary": "kddetr.teachers.vocabulary",
    "kddetr.data.digits": "kddetr.quickstart.digits",
    "kddetr.data.quickstart": "kddetr.quickstart.dataset",
    "kddetr.detectors.backbone": "kddetr.detectors.backbones.resnet",
    "kddetr.detectors.cached": "kddetr.teachers.cached_encoder",
    "kddetr.detectors.deformable_parts": "kddetr.detectors.detr.settings",
    "kddetr.detectors.dense": "kddetr.detectors.stock.dense",
    "kddetr.detectors.detectron2_models": "kddetr.detectors.stock.models",
    "kddetr.detectors.regions": "kddetr.detectors.stock.regions",
    "kddetr.detectors.swin": "kddetr.detectors.backbones.swin",
    "kddetr.detectors.timm_backbone": "kddetr.detectors.backbones.timm_backbone",
    "kddetr.engine.errors": "kddetr.errors",
    **{f"kddetr.engine.{name}": f"kddetr.engine.config.{name}" for name in _CONFIG},
    "kddetr.losses.distillation": "kddetr.losses",
    "kddetr.losses.gaps": "kddetr.losses",
}

NAMES = {
    "kddetr.checkpoint.Vocabulary": "kddetr.teachers.Vocabulary",
    "kddetr.checkpoint.class_names": "kddetr.teachers.class_names",
    "kddetr.checkpoint.listed": "kddetr.teachers.listed",
    "kddetr.data.QuickstartSpec": "kddetr.quickstart.QuickstartSpec",
    "kddetr.data.make_quickstart_data": "kddetr.quickstart.make_quickstart_data",
    "kddetr.data.quickstart_root": "kddetr.quickstart.quickstart_root",
    "kddetr.data.register_quickstart": "kddetr.quickstart.register_quickstart",
    "kddetr.detectors.CachedEncoder": "kddetr.teachers.CachedEncoder",
    "kddetr.losses.bce_gap": "kddetr.losses.BinaryCrossEntropy",
    "kddetr.losses.foreground_weight": "kddetr.losses.ForegroundWeight",
    "kddetr.losses.giou_gap": "kddetr.losses.GIoULoss",
    "kddetr.losses.kl_background_gap": "kddetr.losses.KLWithBackground",
    "kddetr.losses.kl_gap": "kddetr.losses.KLDivergence",
    "kddetr.losses.l1_gap": "kddetr.losses.L1Loss",
    "kddetr.structures.Answerer": "kddetr.structures.QueryableDetector",
    "kddetr.structures.Encoded": "kddetr.structures.EncodedDetector",
    "kddetr.structures.Placement": "kddetr.structures.QueryPlacement",
}


def current_name(path: str) -> str | None:
    """Today's import path of a class or function; None where ``path`` is no earlier name."""
    new = NAMES.get(path)
    if new is None:
        prefix = next((old for old in MODULES if path.startswith(f"{old}.")), None)
        if prefix is None:
            return None
        new = MODULES[prefix] + path.removeprefix(prefix)
    return current_name(new) or new


def explain_old_names(module: str) -> Callable[[str], Any]:
    """A ``__getattr__`` for a module: importing an earlier name from it raises an error that says
    today's name.

    Args:
        module: the module's ``__name__``.
    """

    def __getattr__(name: str) -> Any:
        if new := NAMES.get(f"{module}.{name}"):
            raise RenamedError(f"{module}.{name} is now called {new}: import it from there.")
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return __getattr__
