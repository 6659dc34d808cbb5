"""Detectron2's detectors, given built or by their name in the model zoo, as detectors of this
project.
"""

import math
from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, LazyCall, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.modeling.meta_arch import ProposalNetwork, SemanticSegmentor
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from ...errors import UsageError
from ...ranges import whole
from ...zoo import zoo_with
from .dense import DenseQueryDetector
from .regions import RegionDetector

_NO_DETECTORS = {
    ProposalNetwork: "it predicts boxes without classes",
    SemanticSegmentor: "it labels pixels and predicts no boxes",
}
_OTHER_HEADS = ("mask_", "keypoint_")  # beginnings of the names of arguments of ROI heads


def detectron2_detector(
    model: nn.Module, *, num_queries: int = 300, input_format: str | None = None
) -> nn.Module:
    """Wrap a model of Detectron2 so that it answers queries at any box.

    Args:
        model: a built Fast, Faster, Mask, Keypoint or Cascade R-CNN, RetinaNet or FCOS.
        num_queries: the number of the model's best boxes that are the detector's own queries.
        input_format: "RGB" or "BGR", the order of the channels that ``model`` takes; None: the
            value of its attribute ``input_format``.

    Returns:
        a :class:`RegionDetector` or a :class:`DenseQueryDetector`, which takes RGB images and has
        no weights except those of ``model``.

    Raises:
        UsageError: the model cannot predict at given boxes; the message says why.
    """
    for kind, reason in _NO_DETECTORS.items():
        if isinstance(model, kind):
            raise UsageError(
                f"A {type(model).__name__} is not a detector, {reason}: take a Faster or Cascade"
                " R-CNN, a RetinaNet or an FCOS."
            )
    if isinstance(model, DenseDetector):
        return DenseQueryDetector(model, num_queries=num_queries, input_format=input_format)
    if not isinstance(model, GeneralizedRCNN):
        raise UsageError(
            f"A {type(model).__name__} cannot predict at given boxes: take a Faster or Cascade"
            " R-CNN, a RetinaNet or an FCOS of Detectron2, or a class with the methods of"
            " kddetr.structures.Detector."
        )
    return RegionDetector(model, num_queries=num_queries, input_format=input_format)


def model_zoo_detector(
    name: str,
    *,
    num_classes: int | None = None,
    overrides: Sequence[Any] = (),
    boxes_only: bool = False,
    num_queries: int = 300,
) -> nn.Module:
    """Build a detector of Detectron2's model zoo, without its weights.

    It is built on PyTorch's default device, whatever device its file names.

    Args:
        name: of a ``.yaml`` or ``.py`` file in the zoo, e.g.
            ``COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml``.
        num_classes: K; None: the number in the file.
        overrides: KEY, VALUE, KEY, VALUE, ... of keys in the file, e.g. ``MODEL.FPN.OUT_CHANNELS``
            for a ``.yaml`` file and ``model.backbone.out_channels`` for a ``.py`` file.
        boxes_only: leave out mask and keypoint heads. Otherwise they are trained as usual and need
            the ground truth that Detectron2's DatasetMapper gives.
        num_queries: see :func:`detectron2_detector`.

    Returns:
        a detector, see :func:`detectron2_detector`.

    Raises:
        ValueError: a number is out of range.
        UsageError: there is no such file (the message gives names that are close) or no such key,
            or the model cannot predict at given boxes.
    """
    whole(1, num_queries=num_queries)
    if num_classes is not None:
        whole(1, num_classes=num_classes)
    cfg = zoo_config(name, boxes_only=boxes_only)
    _override(cfg, name, list(overrides))
    if isinstance(cfg, CfgNode):
        if num_classes is not None:
            cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = num_classes
        # Not by build_model, which would move the model to MODEL.DEVICE.
        model = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg)
    else:
        if "model" not in cfg:
            raise UsageError(
                f"The file {name} of Detectron2's model zoo defines no model; take a file under"
                " COCO-Detection/."
            )
        if num_classes is not None:
            node = cfg.model.get("roi_heads", cfg.model)
            if "num_classes" not in node:
                raise UsageError(
                    f"The model of {name} has no num_classes, because it is not a detector; take a"
                    " file under COCO-Detection/."
                )
            node.num_classes = num_classes
        if OmegaConf.select(cfg, "model.head.norm") == "GN":  # that of FCOS
            cfg.model.head.norm = _group_norm
        model = instantiate(cfg.model)
    # All models of the zoo take BGR; FCOS has no attribute that says so.
    order = getattr(model, "input_format", "BGR")
    return detectron2_detector(model, num_queries=num_queries, input_format=order)


def _group_norm(channels: int) -> nn.Module:
    """Detectron2's "GN", also for the one channel with which the head of a RetinaNet or FCOS asks
    for the kind of its norm, and which 32 groups do not divide.
    """
    return nn.GroupNorm(math.gcd(32, channels), channels)


def zoo_config(name: str, *, boxes_only: bool = False) -> CfgNode | DictConfig:
    """The config in a file of Detectron2's model zoo.

    Args:
        name: of the file in the zoo, e.g. ``common/models/mask_rcnn_fpn.py``.
        boxes_only: leave out mask and keypoint heads.

    Returns:
        a CfgNode for a ``.yaml`` file. For a ``.py`` file a DictConfig of everything that it
        defines, which contains only calls and plain values, so that a config made from it can be
        written to a YAML file and read by every release of Detectron2.

    Raises:
        UsageError: there is no such file, or this installation has no model zoo.
    """
    cfg = zoo_with(name).get_config(name)
    if isinstance(cfg, CfgNode):
        if boxes_only:
            cfg.MODEL.MASK_ON = cfg.MODEL.KEYPOINT_ON = False
        return cfg
    _with_calls(cfg)
    heads = OmegaConf.select(cfg, "model.roi_heads") or {}
    for key in [key for key in heads if boxes_only and key.startswith(_OTHER_HEADS)]:
        del heads[key]
    return cfg


def _with_calls(node: Any) -> None:
    """Turn the built shapes in a config into calls, in place.

    A built shape is written to YAML in a way that another release cannot read, and it is lost when
    the config is turned into plain containers.
    """
    keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        if key == "_target_" or OmegaConf.is_interpolation(node, key):
            continue
        value = node[key]
        # A dataclass, which omegaconf keeps as a node of its type; in release 0.6 a named tuple.
        if ShapeSpec in (type(value), OmegaConf.get_type(value)):
            sizes = {k: getattr(value, k) for k in ("channels", "height", "width", "stride")}
            node[key] = LazyCall(ShapeSpec)(**{k: v for k, v in sizes.items() if v is not None})
        elif OmegaConf.is_config(value):
            _with_calls(value)


def _override(cfg: CfgNode | DictConfig, name: str, overrides: list[Any]) -> None:
    if len(overrides) % 2:
        raise UsageError(f"overrides must be KEY, VALUE, KEY, VALUE, ..., not {overrides}.")
    if isinstance(cfg, CfgNode):
        try:
            cfg.merge_from_list(
                [OmegaConf.to_container(x) if OmegaConf.is_config(x) else x for x in overrides]
            )
        except (AssertionError, KeyError, ValueError) as error:
            raise UsageError(
                f"overrides of {name}: {str(error).strip(chr(34))}; see the keys of that file."
            ) from error
        return
    for key, value in zip(overrides[::2], overrides[1::2]):
        group, _, last = str(key).rpartition(".")
        node = OmegaConf.select(cfg, group) if group else None
        # A call may take arguments that the file does not set.
        if not isinstance(node, DictConfig) or not (last in node or "_target_" in node):
            raise UsageError(
                f"overrides of {name}: there is no key {key}; see the keys of that file."
            )
        OmegaConf.update(cfg, key, value, merge=False)
