"""What people call a detector: its family, its backbone, and how large it is."""

from omegaconf import DictConfig
from torch import nn

from ..checkpoint import weight_owner
from ..checkpoint.backbones import described
from ..detectors import dab_detr, deformable_detr, dino
from ..engine.config.calls import located

_FAMILIES = {dab_detr: "DAB-DETR", dino: "DINO", deformable_detr: "Deformable DETR"}
_VARIANTS = {
    "refine": "Deformable DETR with box refinement",
    "two_stage": "two-stage Deformable DETR",
    "anchors": "DAB-Deformable-DETR",
}
_STOCK = {
    "GeneralizedRCNN": "Faster R-CNN",
    "RetinaNet": "RetinaNet",
    "FCOS": "FCOS",
}


def in_words(node: DictConfig, model: nn.Module) -> str:
    """A detector in a few words: "DINO, ResNet-50, 900 queries, 47.5 M parameters".

    Args:
        node: its config node.
        model: what it builds.
    """
    owner = weight_owner(model)
    kind = type(owner).__name__
    if owner is not model:
        cascade = "Cascade" in type(getattr(owner, "roi_heads", None)).__name__
        kind = _STOCK.get(kind, kind.removesuffix("ForObjectDetection"))
        kind = "Cascade R-CNN" if cascade else kind
    elif (builder := located(node["_target_"])) in _FAMILIES:
        kind = _VARIANTS.get(str(node.get("variant")), _FAMILIES[builder])
        if builder is deformable_detr and "variant" not in node:
            kind = _VARIANTS["refine"]  # the default
    network = described(owner.state_dict()).removeprefix("a ")
    if network in ("backbone of another kind", "") and (part := getattr(owner, "backbone", None)):
        network = type(part).__name__
    queries = f"{node.num_queries} queries" if "num_queries" in node else ""
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    parts = (kind, network, queries, f"{millions:.2f} M parameters")
    return ", ".join(part for part in parts if part)
