"""The package ``transformers``: imported where it is used, and checked before it is relied on."""

import inspect
import sys
from types import ModuleType
from typing import Any

from torch import nn

from ...errors import UsageError, did_you_mean
from .members import MEMBERS, RTDetr

TESTED = ("5.24.0",)  # versions of transformers with which the live tests pass

# Detectors of the package that are none of the line, and what it would take.
_BY_ITS_OWN_NAME = "this project has a detector of its own for it: take kddetr.detectors.{}"
_NO_BOXES = "its queries have no reference boxes, so it cannot be asked at a given box"
_ASKS_FOR_TEXT = "it asks for a text beside the image, and its classes are words of that text"
_GROUPED = (
    "its queries are learned for each of several groups and its backbone is a vision transformer"
    " in windows; docs/realtime.md says what an adapter would take"
)
_OTHERS = {
    "detr": _NO_BOXES,
    "table-transformer": _NO_BOXES,
    "yolos": _NO_BOXES,
    "conditional_detr": "its queries have a reference point without a size",
    "deta": "its boxes are suppressed by overlap, so a query has no prediction of its own",
    "grounding-dino": _ASKS_FOR_TEXT,
    "mm-grounding-dino": _ASKS_FOR_TEXT,
    "omdet-turbo": _ASKS_FOR_TEXT,
    "owlvit": _ASKS_FOR_TEXT,
    "owlv2": _ASKS_FOR_TEXT,
    "dab-detr": _BY_ITS_OWN_NAME.format("dab_detr"),
    "deformable_detr": _BY_ITS_OWN_NAME.format("deformable_detr"),
    "lw_detr": _GROUPED,
    "rf_detr": _GROUPED,
}
_NAMES = ", ".join(MEMBERS)
_PARTS = (
    *("encoder", "decoder_input_proj", "enc_output", "enc_score_head", "enc_bbox_head"),
    *("generate_anchors", "decoder"),
)
_DECODER = (
    *("inputs_embeds", "encoder_hidden_states", "encoder_attention_mask", "reference_points"),
    *("spatial_shapes", "spatial_shapes_list", "level_start_index"),
)
_DENOISING = (
    *("targets", "num_classes", "num_queries", "class_embed", "num_denoising_queries"),
    *("label_noise_ratio", "box_noise_scale"),
)
_LOSS = (
    *("logits", "labels", "device", "pred_boxes", "config", "outputs_class", "outputs_coord"),
    *("enc_topk_logits", "enc_topk_bboxes", "denoising_meta_values"),
)
_MAKE_DENOISING = "get_contrastive_denoising_training_group"


def transformers_package() -> ModuleType:
    """The package.

    Raises:
        UsageError: it is not installed, or cannot be imported.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError(
            "This detector is built by the package transformers, which cannot be imported"
            f" ({error}): pip install -e .[hf]"
        ) from error
    return transformers


def member_of(model_type: object) -> RTDetr:
    """The member of the line with a ``model_type``, as the configurations of the package name it.

    Raises:
        UsageError: it is none; the message says what would be needed, or which names are close.
    """
    if model_type in MEMBERS:
        return MEMBERS[str(model_type)]()
    if reason := _OTHERS.get(str(model_type).replace("_", "-")) or _OTHERS.get(str(model_type)):
        raise UsageError(
            f"A model of the type {model_type!r} of transformers cannot be distilled here:"
            f" {reason}; the types that can are {_NAMES}."
        )
    hint = did_you_mean(str(model_type), MEMBERS, otherwise=f"the types that can are {_NAMES}.")
    raise UsageError(f"transformers' model type {model_type!r} is no detector known here; {hint}")


def denoising_queries(stock: nn.Module) -> Any:
    """The function of the package that makes the denoising queries of a model."""
    return getattr(sys.modules[type(stock.model).__module__], _MAKE_DENOISING)


def check_internals(stock: nn.Module, member: RTDetr) -> None:
    """Refuse a model whose parts are not those that this wrapper calls.

    Raises:
        UsageError: the message names what is missing and the versions that are tested.
    """
    model = getattr(stock, "model", None)
    missing = [f"model.{name}" for name in (*member.parts, *_PARTS) if not hasattr(model, name)]
    if not missing:
        checked = (
            ("model.decoder.forward", model.decoder.forward, _DECODER),
            ("loss_function", getattr(stock, "loss_function", None), _LOSS),
            (
                _MAKE_DENOISING,
                getattr(sys.modules[type(model).__module__], _MAKE_DENOISING, None),
                _DENOISING,
            ),
        )
        for where, function, wanted in checked:
            known = inspect.signature(function).parameters if callable(function) else {}
            missing += [f"{where}({name})" for name in wanted if name not in known]
    if not missing:
        missing += [
            f"model.decoder.{name}"
            for name in ("class_embed", "bbox_embed", "layers")
            if not len(getattr(model.decoder, name, None) or ())
        ]
    if missing:
        raise UsageError(
            f"The {type(stock).__name__} of transformers {transformers_package().__version__} has"
            f" other parts than this project calls (missing: {', '.join(missing[:6])}): install a"
            f" version that is tested, pip install 'transformers=={TESTED[-1]}'."
        )
