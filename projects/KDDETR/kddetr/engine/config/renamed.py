"""Config keys of earlier versions: what each is called today, and how a saved config that has them
is translated.

Moved classes and functions are listed in :mod:`kddetr.renamed`.
"""

from collections.abc import Collection, Mapping
from typing import Any

from ...renamed import current_name
from .calls import call_parameters

# Arguments that were only renamed. An entry applies to a callable that takes the new name and not
# the old one.
ARGUMENTS = {
    "width": "embed_dim",
    "heads": "num_heads",
    "hidden": "feedforward_dim",
    "points": "num_sampling_points",
    "placement": "query_placement",
}

# Three flags of deformable_detr became one argument; the first that is set decides.
VARIANTS = {"anchor_queries": "anchors", "two_stage": "two_stage", "refine": "refine"}

# DistillationLoss became two classes that are given their terms as objects.
LOSS = "kddetr.losses.DistillationLoss"
LOSSES = {
    "weighted_mean": "kddetr.losses.WeightedMeanLoss",
    "published": "kddetr.losses.PublishedLoss",
}
CLASS_LOSSES = {
    "kl": "kddetr.losses.KLDivergence",
    "kl_background": "kddetr.losses.KLWithBackground",
    "bce": "kddetr.losses.BinaryCrossEntropy",
}
LOSS_ARGUMENTS = {
    "class_weight": "class_loss.weight",
    "temperature": "class_loss.temperature",
    "class_gap": f"class_loss._target_ ({', '.join(CLASS_LOSSES.values())})",
    "box_weight": "box_losses.0.weight",
    "giou_weight": "box_losses.1.weight",
    "eps": "box_losses.1.eps",
    "foreground": "weighting (kddetr.losses.ForegroundWeight or kddetr.losses.EqualWeight)",
    "reduction": f"_target_ ({' or '.join(LOSSES.values())})",
}
LOSS_IS_NOW = (
    "DistillationLoss is now the protocol of every distillation loss: take"
    f" {' or '.join(LOSSES.values())}, which are given a class_loss, box_losses and a weighting"
    f" in place of {', '.join(LOSS_ARGUMENTS)}."
)


def current_argument(old: str, parameters: Collection[str] | None) -> str | None:
    """Today's name of an argument that a callable with ``parameters`` does not take.

    It may be that of an argument inside of another one, and may be followed by its possible values
    in parentheses; None where ``old`` is no earlier name.
    """
    parameters = parameters or ()
    if ARGUMENTS.get(old) in parameters:
        return ARGUMENTS[old]
    if old in VARIANTS and "variant" in parameters:
        return f"variant (plain, {', '.join(VARIANTS.values())})"
    return LOSS_ARGUMENTS.get(old) if "class_loss" in parameters else None


def translated(node: Any, replaced: dict[str, None]) -> Any:
    """A saved config, or a part of it in plain containers, in today's names.

    ``replaced`` gets a phrase for every name that was replaced, as an ordered set.
    """
    if isinstance(node, list):
        return [translated(item, replaced) for item in node]
    if not isinstance(node, Mapping):
        return node
    node = {key: translated(value, replaced) for key, value in node.items()}
    target = node.get("_target_")
    if not isinstance(target, str):
        return node
    new = current_name(target) or target
    if not new.startswith("kddetr."):
        return node
    if new == LOSS:
        loss = _loss(node)
        replaced[f"{target} by {loss['_target_']}"] = None
        return loss
    if new != target:
        replaced[f"{target} by {new}"] = None
    return {"_target_": new, **_arguments(node, call_parameters(new) or (), replaced)}


def _arguments(
    node: Mapping[str, Any], parameters: Collection[str], replaced: dict[str, None]
) -> dict[str, Any]:
    """The arguments of a call under today's names."""
    arguments: dict[str, Any] = {}
    flags: dict[str, bool] = {}
    for key, value in node.items():
        new = None if key in parameters else current_argument(key, parameters)
        if new in ARGUMENTS.values():
            arguments[new] = value
            replaced[f"{key} by {new}"] = None
        elif new is not None and key in VARIANTS:
            flags[key] = value
            replaced[f"{key} by variant"] = None
        elif key != "_target_":
            arguments[key] = value
    if flags:
        flags.setdefault("refine", True)  # the former default
        chosen = (variant for flag, variant in VARIANTS.items() if flags.get(flag))
        arguments["variant"] = next(chosen, "plain")
    return arguments


def _loss(node: Mapping[str, Any]) -> dict[str, Any]:
    """A former DistillationLoss as one of today's losses."""
    reduction = node.get("reduction", "weighted_mean")
    weight = node.get("class_weight")
    if weight is None:
        weight = {"weighted_mean": 10.0, "published": 1.0}[reduction]
    giou = {"_target_": "kddetr.losses.GIoULoss", "weight": node.get("giou_weight", 2.0)}
    if "eps" in node:
        giou["eps"] = node["eps"]
    weighting = "ForegroundWeight" if node.get("foreground", True) else "EqualWeight"
    return {
        "_target_": LOSSES[reduction],
        "class_loss": {
            "_target_": CLASS_LOSSES[node.get("class_gap", "kl")],
            "weight": weight,
            "temperature": node.get("temperature", 10.0),
        },
        "box_losses": [
            {"_target_": "kddetr.losses.L1Loss", "weight": node.get("box_weight", 5.0)},
            giou,
        ],
        "weighting": {"_target_": f"kddetr.losses.{weighting}"},
    }
