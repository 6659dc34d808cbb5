"""Detectors of the RT-DETR line built from their configuration, or described by a model's files."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ...errors import UsageError
from ...hub import PREFIX, PREPARATION, description, hub_folder
from ...ranges import whole
from .content import PREDICTION
from .detector import HuggingFaceDetector
from .initial import initialize
from .package import member_of, transformers_package

# Of a configuration: what this project sets itself, or what only describes the file.
_NOT_SETTINGS = {
    *("model_type", "id2label", "label2id", "num_labels", "architectures", "transformers_version"),
    *("dtype", "torch_dtype", "_name_or_path", "use_timm_backbone", "backbone"),
    *("use_pretrained_backbone", "backbone_kwargs", "is_encoder_decoder", "problem_type"),
}
_BILINEAR = 2  # PIL's number of that interpolation


def huggingface_detector(
    model_type: str,
    *,
    num_classes: int,
    settings: Mapping[str, Any] | None = None,
    image_size: Sequence[int] = (640, 640),
    train_sizes: Sequence[int] = (),
    pixel_mean: Sequence[float] = (0.0, 0.0, 0.0),
    pixel_std: Sequence[float] = (255.0, 255.0, 255.0),
    num_detections: int = 300,
    content: str = PREDICTION,
) -> HuggingFaceDetector:
    """Build a detector of the package ``transformers`` with random weights; nothing is fetched.

    Args:
        model_type: "rt_detr", "rt_detr_v2", "d_fine" or "deimv2".
        num_classes: K.
        settings: of the package's configuration class, those that differ from its defaults, such as
            ``{"decoder_layers": 3, "backbone_config": {"model_type": "rt_detr_resnet", ...}}``.
        image_size, train_sizes, pixel_mean, pixel_std, num_detections, content: see
            :class:`HuggingFaceDetector`.

    Raises:
        ValueError: a number is out of range.
        UsageError: the package is missing or another than those that are tested, there is no such
            type or setting, or the settings do not go together.
    """
    whole(1, num_classes=num_classes)
    member_of(model_type)  # before the package is imported, which takes seconds
    package = transformers_package()
    if isinstance(settings, DictConfig):
        settings = OmegaConf.to_container(settings, resolve=True)
    config = _config(package, model_type, dict(settings or {}), num_classes)
    try:
        stock = package.AutoModelForObjectDetection.from_config(config)
        initialize(stock)
    except (ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise UsageError(
            f"transformers cannot build this {model_type}: {error}; correct its settings."
        ) from error
    return HuggingFaceDetector(
        stock,
        image_size=list(image_size),
        train_sizes=list(train_sizes),
        pixel_mean=list(pixel_mean),
        pixel_std=list(pixel_std),
        num_detections=num_detections,
        content=content,
    )


def huggingface_arguments(source: str) -> dict[str, Any]:
    """The arguments of :func:`huggingface_detector` for a model on the Hub or in a folder.

    Only the descriptions of the model are read, ``config.json`` and ``preprocessor_config.json``.
    Its weights are loaded like any checkpoint, from the same ``source``.

    Args:
        source: ``hf://OWNER/NAME``, or a folder that ``save_pretrained`` has written.

    Raises:
        CheckpointError: the model cannot be fetched, or its files cannot be read.
        UsageError: the folder has no such files, the model is none of the line, or its images are
            prepared in a way that is not known here.
    """
    folder = hub_folder(source, weights=False) if source.startswith(PREFIX) else source
    found, prepared = description(folder), description(folder, PREPARATION)
    if not found:
        raise UsageError(
            f"{source} has no config.json: name a model of the Hub (hf://OWNER/NAME), or a folder"
            " that save_pretrained has written."
        )
    model_type = found.get("model_type")
    member_of(model_type)
    classes = found.get("id2label") or {}
    settings = {k: v for k, v in found.items() if k not in _NOT_SETTINGS}
    arguments = {
        "model_type": model_type,
        "num_classes": int(found.get("num_labels") or len(classes) or 80),
        "settings": settings,
    }
    return arguments | (_preparation(prepared, source) if prepared else {})


def _config(package: Any, model_type: str, settings: dict[str, Any], num_classes: int) -> Any:
    """The package's configuration, without the classes' names."""
    kind = type(package.AutoConfig.for_model(model_type))
    known = set(inspect.signature(kind.__init__).parameters) | set(vars(kind()))
    if unknown := sorted(settings.keys() - known):
        raise UsageError(
            f"The configuration of a {model_type} has no {', '.join(unknown)}: see"
            f" transformers.{kind.__name__} for what it has."
        )
    try:
        return kind(**settings, num_labels=num_classes)
    except Exception as error:  # of the package's own checks, which have types of their own
        reason = " ".join(str(error).split())
        raise UsageError(
            f"transformers refuses these settings of a {model_type}: {reason:.300}; correct them."
        ) from error


def _preparation(found: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The arguments that say how images are prepared, by a ``preprocessor_config.json``."""
    size = found.get("size") or {}
    plain = {"do_resize": True, "do_rescale": True, "do_pad": False, "resample": _BILINEAR}
    odd = [f"{k}={found[k]}" for k, value in plain.items() if found.get(k, value) != value]
    if not {"height", "width"} <= size.keys():
        odd.append(f"size={size}")
    if odd:
        raise UsageError(
            f"{source} prepares its images with {', '.join(odd)}, and here they are resized to one"
            " height and width by bilinear interpolation: give image_size, pixel_mean and pixel_std"
            " by hand where that is close enough."
        )
    scale = 1 / found.get("rescale_factor", 1 / 255)
    mean, std = [0.0] * 3, [1.0] * 3
    if found.get("do_normalize", False):
        mean, std = found.get("image_mean", mean), found.get("image_std", std)
    return {
        "image_size": [size["height"], size["width"]],
        "pixel_mean": [round(scale * value, 6) for value in mean],
        "pixel_std": [round(scale * value, 6) for value in std],
    }
