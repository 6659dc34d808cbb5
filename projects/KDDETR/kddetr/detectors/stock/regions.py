"""Detectron2's R-CNNs as detectors that answer queries: the box of a query becomes a region.

The region goes through the box pooler, the box head and the predictor, like the model's own
proposals. The rest of the model stays as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.roi_heads import (
    CascadeROIHeads,
    Res5ROIHeads,
    RROIHeads,
    StandardROIHeads,
)
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from ...boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from ...errors import UsageError
from ...structures import Predictions, Queries
from ...transfer import rows
from ..batch import BatchMemory
from .base import StockDetector, box_queries, box_scale, check_forward, finite
from .pooling import pooled

EMPTY = 1e-3  # pixels; a side shorter than this has nothing to pool and becomes one pixel long


@dataclass
class RegionMemory(BatchMemory):
    """The feature maps of a batch of images.

    Attributes:
        images: normalised and padded; ``image_sizes`` are (h, w) in pixels of the unpadded images.
        features: (B, C, H_l, W_l) by name.
        proposals: of each image, best first: those that the first stage makes in evaluation mode,
            or those that came with the image where the model has no first stage. None until they
            are needed.
    """

    images: ImageList
    features: Mapping[str, Tensor]
    proposals: list[Instances] | None = None

    def __len__(self) -> int:
        return len(self.images.image_sizes)

    def _select(self, images: list[int]) -> "RegionMemory":
        sizes = [self.images.image_sizes[i] for i in images]
        features = {name: rows(maps, images) for name, maps in self.features.items()}
        proposals = None if self.proposals is None else [self.proposals[i] for i in images]
        return RegionMemory(ImageList(rows(self.images.tensor, images), sizes), features, proposals)


def foreground_logits(scores: Tensor, *, sigmoid: bool = False) -> Tensor:
    """A predictor's scores as (R, K) logits of the foreground classes, before a sigmoid.

    This is where the softmax with background of an R-CNN meets the sigmoid of the transformers:

        z_c = s_c - s_background

    is the log-odds of class c against background. (The logit of a sigmoid is the log-odds of class
    c against everything else; the two are equal where no other class is likely.) No information is
    lost: softmax([z, 0]) is the predictor's own distribution again, and softmax(z) is the
    distribution of the classes given that there is an object.

    Args:
        scores: (R, K + 1), background last.
        sigmoid: the predictor was trained with a sigmoid (``use_sigmoid_ce``). Then the scores are
            such logits already, and the last column has no meaning.
    """
    scores = scores.float()
    return scores[:, :-1] if sigmoid else scores[:, :-1] - scores[:, -1:]


class RegionDetector(StockDetector):
    """A Fast, Faster, Mask, Keypoint or Cascade R-CNN of Detectron2 that answers queries at any
    box.

    The stages of a Cascade R-CNN are layers: the boxes of a stage are the regions of the next one.
    The last layer is the last stage, as in training; at inference the model averages the scores of
    its stages.

    Its own queries are the best proposals. For the arguments see :class:`StockDetector`.

    Raises:
        UsageError: the model has other ROI heads or a forward of its own, or the order of its
            channels is not known.
    """

    @staticmethod
    def check_stock(stock: nn.Module) -> None:
        heads = getattr(stock, "roi_heads", None)
        if not isinstance(heads, StandardROIHeads | Res5ROIHeads) or isinstance(heads, RROIHeads):
            other = "no ROI heads" if heads is None else type(heads).__name__
            raise UsageError(
                f"A {type(stock).__name__} has {other}, but only Detectron2's StandardROIHeads,"
                " CascadeROIHeads and Res5ROIHeads can predict at given regions: take a Faster,"
                " Mask, Keypoint or Cascade R-CNN."
            )
        check_forward(stock, GeneralizedRCNN, "a GeneralizedRCNN")

    @property
    def num_classes(self) -> int:
        return self.stock.roi_heads.num_classes

    def encode(self, inputs: list[dict[str, Any]]) -> RegionMemory:
        """The feature maps of raw images."""
        images = self.stock.preprocess_image(self.in_stock_format(inputs))
        memory = RegionMemory(images, self.stock.backbone(images.tensor))
        if self.stock.proposal_generator is None and all("proposals" in x for x in inputs):
            memory.proposals = self._given_proposals(inputs)
        return memory

    def feature_maps(self, memory: RegionMemory) -> Mapping[str, Sequence[Tensor]]:
        """See :meth:`kddetr.structures.EncodedDetector.feature_maps`."""
        return {"neck": list(memory.features.values())}

    def queries(self, memory: RegionMemory) -> Queries:
        """The best proposals as (B, N, 4) boxes, in training as in evaluation mode."""
        if memory.proposals is None:
            memory.proposals = self._propose(memory)
        best = [p.proposal_boxes.tensor[: self.num_queries] for p in memory.proposals]
        return box_queries(best, memory.images.image_sizes)

    def decode(self, memory: RegionMemory, queries: Queries) -> Predictions:
        """The predictions of the box head, (1, B, N, ...); of a cascade (stages, B, N, ...).

        The region of a query is the part of its box that lies in the image. Where that part is
        empty, the region is the nearest pixel.

        Raises:
            UsageError: a box is not finite.
        """
        sizes = memory.images.image_sizes
        regions = pixel_regions(queries.boxes, sizes)
        heads = self.stock.roi_heads
        if isinstance(heads, CascadeROIHeads):
            stages = self._cascade(memory.features, regions, sizes)
        else:
            features = _pooled(heads, memory.features, regions)
            stages = [(heads.box_predictor, heads.box_predictor(features), regions)]
        shape = queries.boxes.shape[:2]
        layers = [_predictions(*stage, sizes, shape) for stage in stages]
        parts = zip(*((x.logits, x.boxes, x.class_boxes) for x in layers), strict=True)
        return Predictions(*(None if part[0] is None else torch.cat(part) for part in parts))

    def stock_losses(
        self, memory: RegionMemory, inputs: list[dict[str, Any]], truth: list[Instances]
    ) -> dict[str, Tensor]:
        """The losses as GeneralizedRCNN.forward computes them, in the same order.

        The proposals that are made for them are not kept in the memory: in training mode their
        number has other limits than that of the detector's own queries.
        """
        stock = self.stock
        if stock.proposal_generator is None:
            proposals, first = self._given_proposals(inputs), {}
        else:
            proposals, first = stock.proposal_generator(memory.images, memory.features, truth)
        _, second = stock.roi_heads(memory.images, memory.features, proposals, truth)
        if stock.vis_period > 0 and get_event_storage().iter % stock.vis_period == 0:
            stock.visualize_training(self.in_stock_format(inputs), proposals)
        return {**second, **first}

    @torch.no_grad()
    def _propose(self, memory: RegionMemory) -> list[Instances]:
        """Proposals without ground truth, which the generator would ask for in training mode."""
        generator = self.stock.proposal_generator
        if generator is None:
            raise UsageError(
                "This model has no proposal generator and the images have no proposals, so there"
                " are no queries of its own: use points of the other detector."
            )
        was_training = generator.training
        try:
            return generator.eval()(memory.images, memory.features, None)[0]
        finally:
            generator.train(was_training)

    def _cascade(
        self,
        features: Mapping[str, Tensor],
        regions: list[Boxes],
        sizes: Sequence[tuple[int, int]],
    ) -> list[tuple[nn.Module, tuple[Tensor, Tensor], list[Boxes]]]:
        """Predictor, its output and the regions of every stage."""
        heads, stages = self.stock.roi_heads, []
        maps = [features[name] for name in heads.box_in_features]
        for stage, predictor in enumerate(heads.box_predictor):
            proposals = [Instances(size, proposal_boxes=b) for size, b in zip(sizes, regions)]
            # The method of Detectron2 itself, because it also scales the gradient of the features.
            output = heads._run_stage(maps, proposals, stage)
            stages.append((predictor, output, regions))
            boxes = predictor.predict_boxes(output, proposals)
            regions = [inside(b.detach(), size) for b, size in zip(boxes, sizes)]
        return stages

    def _given_proposals(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        if not all("proposals" in x for x in inputs):
            raise UsageError(
                "This model has no proposal generator and the images have no proposals: give the"
                " model a generator, or use a data set and a mapper that load proposals."
            )
        return [x["proposals"].to(self.device) for x in inputs]

    def check_truth(self, x: dict[str, Any]) -> None:
        """Raise a UsageError where the ground truth of an image does not fit the model, or the
        masks or keypoints that the model learns are missing.
        """
        super().check_truth(x)
        heads, instances = self.stock.roi_heads, x["instances"]
        for on, field in (("mask_on", "gt_masks"), ("keypoint_on", "gt_keypoints")):
            # Detectron2's mapper leaves the field out where an image has no box.
            if len(instances) and getattr(heads, on, False) and not instances.has(field):
                raise UsageError(
                    f"The model has a head that learns {field}, which the images do not have: set"
                    " dataloader.train.mapper to Detectron2's DatasetMapper with image_format=RGB"
                    " and use_instance_mask or use_keypoint, or take a model without that head."
                )


def pixel_regions(boxes: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Boxes]:
    """(B, N, 4) query boxes as regions ``xyxy`` in pixels, inside the B images (h, w)."""
    corners = cxcywh_to_xyxy(finite(boxes))
    corners = corners * box_scale(sizes, corners)
    return [inside(c, size) for c, size in zip(corners, sizes, strict=True)]


def inside(boxes: Tensor, size: tuple[int, int]) -> Boxes:
    """The parts of (N, 4) boxes ``xyxy`` in pixels that lie in an image (h, w); a side shorter than
    ``EMPTY`` becomes one pixel.
    """
    limit = boxes.new_tensor([size[1], size[0]])
    low, high = (torch.minimum(t.clamp(min=0), limit) for t in (boxes[:, :2], boxes[:, 2:]))
    empty = high - low < EMPTY
    low = torch.where(empty, torch.minimum(low, limit - 1), low)
    return Boxes(torch.cat([low, torch.where(empty, low + 1, high)], dim=1))


def _pooled(heads: nn.Module, features: Mapping[str, Tensor], regions: list[Boxes]) -> Tensor:
    """(R, C) input of the predictor for the regions of all images."""
    if isinstance(heads, Res5ROIHeads):
        maps = [features[name] for name in heads.in_features]
        return heads._shared_roi_transform(maps, regions).mean(dim=[2, 3])
    maps = [features[name] for name in heads.box_in_features]
    return heads.box_head(pooled(heads.box_pooler, maps, regions))


def _predictions(
    predictor: nn.Module,
    output: tuple[Tensor, Tensor],
    regions: list[Boxes],
    sizes: Sequence[tuple[int, int]],
    shape: tuple[int, int],
) -> Predictions:
    """One stage's scores (B * N, K + 1) and deltas (B * N, 4) or (B * N, 4 * K) of its regions as
    (1, B, N, ...), with gradients through scores and deltas.
    """
    scores, deltas = output
    sigmoid = getattr(predictor, "use_sigmoid_ce", False)  # Detectron2 after 0.6
    logits = foreground_logits(scores, sigmoid=sigmoid).unflatten(0, shape)[None]
    corners = predictor.box2box_transform.apply_deltas(deltas, Boxes.cat(regions).tensor)
    corners = corners.unflatten(0, shape).unflatten(-1, (-1, 4))
    boxes = xyxy_to_cxcywh(corners / box_scale(sizes, corners)[:, :, None])[None]
    if boxes.shape[3] == 1:
        return Predictions(logits, boxes[:, :, :, 0])
    return Predictions(logits, boxes[:, :, :, 0], boxes).of_classes(logits.argmax(-1))
