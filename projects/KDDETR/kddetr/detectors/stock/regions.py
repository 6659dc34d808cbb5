"""Detectron2's two-stage detectors as detectors that answer queries: a query is a region.

Its box becomes a region of the feature pyramid, and goes through the box pooler, the box head and
the predictor that the model's own proposals go through. Everything else is the model's own business
and stays as it is.
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
from .base import StockDetector, box_queries, finite

PARTS = ("logits", "boxes", "class_boxes")
EMPTY = 1e-3  # pixels; a side shorter than this has nothing to pool, and becomes one pixel


@dataclass
class RegionMemory:
    """What is computed once per image.

    Attributes:
        images: normalised and padded; ``image_sizes`` are (h, w) in pixels without the padding.
        features: (B, C, H_l, W_l) by name.
        proposals: the first stage's, per image, best first; None until somebody needs them.
    """

    images: ImageList
    features: Mapping[str, Tensor]
    proposals: list[Instances] | None = None

    def select(self, images: Sequence[int]) -> "RegionMemory":
        """The memory of the images with those indices; the same one where these are all."""
        sizes = self.images.image_sizes
        if list(images) == list(range(len(sizes))):
            return self
        chosen = ImageList(self.images.tensor[list(images)], [sizes[i] for i in images])
        return RegionMemory(chosen, {k: v[list(images)] for k, v in self.features.items()})


def foreground_logits(scores: Tensor, *, sigmoid: bool = False) -> Tensor:
    """A predictor's scores as logits of the foreground classes before a sigmoid.

    This is the one place where a softmax with background meets the sigmoid of the transformers:

        z_c = s_c - s_background

    the log-odds of class c against background alone. (A sigmoid's logit is c against everything
    else, which is the same where no other class is in play.) Nothing is lost: softmax([z, 0]) is
    the predictor's own distribution again, and the softmax over z alone is that of the classes
    given that there is an object.

    Args:
        scores: (R, K + 1), background last.
        sigmoid: the predictor was trained with a sigmoid (``use_sigmoid_ce``): the scores are such
            logits already, and the last column means nothing.

    Returns:
        (R, K).
    """
    scores = scores.float()
    return scores[:, :-1] if sigmoid else scores[:, :-1] - scores[:, -1:]


class RegionDetector(StockDetector):
    """A Fast or Faster, Mask, Keypoint or Cascade R-CNN of Detectron2 that can be asked at any box.

    It takes RGB images, like all detectors here, and turns them into what ``stock`` was made for.
    It has no weights of its own: those of ``stock`` are what is trained, saved and loaded.

    Cascade R-CNN's stages are layers: the boxes of a stage are the regions of the next. Its last
    layer is the last stage, as it is trained; at inference it averages the stages' scores.

    Args:
        stock: the model.
        num_queries: its own queries are that many of its proposals, the best.
        input_format: "RGB" or "BGR", the order of the channels that ``stock`` takes; None: what its
            attribute ``input_format`` says.

    Raises:
        UsageError: the model has no such heads, trains in a way of its own, or does not say its
            order of channels.
    """

    def __init__(
        self, stock: nn.Module, *, num_queries: int = 300, input_format: str | None = None
    ) -> None:
        _check_heads(stock)
        super().__init__(stock, num_queries=num_queries, input_format=input_format)

    @property
    def num_classes(self) -> int:
        return self.stock.roi_heads.num_classes

    def encode(self, inputs: list[dict[str, Any]]) -> RegionMemory:
        """Raw images to features."""
        images = self.stock.preprocess_image(self.in_own_order(inputs))
        return RegionMemory(images, self.stock.backbone(images.tensor))

    def queries(self, memory: RegionMemory) -> Queries:
        """The best proposals as boxes; the whole image where there are not enough of them."""
        if memory.proposals is None:
            memory.proposals = self._propose(memory)
        found = memory.proposals
        best = [p.proposal_boxes.tensor[: self.num_queries] for p in found]
        return box_queries(best, memory.images.image_sizes)

    def decode(self, memory: RegionMemory, queries: Queries) -> Predictions:
        """What the box head sees at the queries' boxes, (1, B, N, ...); of a cascade (stages, ...).

        A region is the part of a box that lies in the image; where nothing of it does, or it has no
        area, it is the nearest pixel.

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
        answers = [_answers(*stage, sizes, shape) for stage in stages]
        parts = ("logits", "boxes") if answers[0].class_boxes is None else PARTS
        return Predictions(*(torch.cat([getattr(a, part) for a in answers]) for part in parts))

    def own_losses(
        self, memory: RegionMemory, inputs: list[dict[str, Any]], truth: list[Instances]
    ) -> dict[str, Tensor]:
        """As GeneralizedRCNN.forward computes them, and in its order."""
        stock = self.stock
        if stock.proposal_generator is None:
            memory.proposals, first = self._given_proposals(inputs), {}
        else:
            memory.proposals, first = stock.proposal_generator(
                memory.images, memory.features, truth
            )
        _, second = stock.roi_heads(memory.images, memory.features, memory.proposals, truth)
        if stock.vis_period > 0 and get_event_storage().iter % stock.vis_period == 0:
            stock.visualize_training(self.in_own_order(inputs), memory.proposals)
        return {**second, **first}

    @torch.no_grad()
    def _propose(self, memory: RegionMemory) -> list[Instances]:
        """Proposals without a look at ground truth, which in training the generator would want."""
        generator = self.stock.proposal_generator
        if generator is None:
            raise UsageError(
                "This model has no proposal generator, so it has no queries of its own: take"
                " points that come from the other detector."
            )
        was_training = generator.training
        try:
            return generator.eval()(memory.images, memory.features, None)[0]
        finally:
            generator.train(was_training)

    def _cascade(self, features, regions: list[Boxes], sizes) -> list[tuple]:
        """(predictor, its output, regions) of every stage."""
        heads, stages = self.stock.roi_heads, []
        maps = [features[name] for name in heads.box_in_features]
        for stage, predictor in enumerate(heads.box_predictor):
            proposals = [Instances(size, proposal_boxes=b) for size, b in zip(sizes, regions)]
            # Its own way through a stage: the gradient of the features is scaled there.
            found = heads._run_stage(maps, proposals, stage)
            stages.append((predictor, found, regions))
            found = predictor.predict_boxes(found, proposals)
            regions = [inside(b.detach(), size) for b, size in zip(found, sizes)]
        return stages

    def _given_proposals(self, inputs: list[dict[str, Any]]) -> list[Instances]:
        if not all("proposals" in x for x in inputs):
            raise UsageError(
                "This model has no proposal generator and the images come without proposals: give"
                " it one, or a data set and a mapper that load precomputed proposals."
            )
        return [x["proposals"].to(self.device) for x in inputs]

    def check_truth(self, instances: Instances) -> None:
        """Raise UsageError for a class that the model has not got, and where masks or keypoints
        that it learns are missing."""
        super().check_truth(instances)
        heads = self.stock.roi_heads
        for on, field in (("mask_on", "gt_masks"), ("keypoint_on", "gt_keypoints")):
            # Detectron2's mapper leaves the field out where an image has no box.
            if len(instances) and getattr(heads, on, False) and not instances.has(field):
                raise UsageError(
                    f"The model has a head that learns {field} and the images come without:"
                    " set dataloader.train.mapper to Detectron2's DatasetMapper with"
                    " image_format=RGB and use_instance_mask or use_keypoint, or take a model"
                    " without that head."
                )


def pixel_regions(boxes: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Boxes]:
    """(B, N, 4) ``cxcywh`` of the unit square as regions (xyxy pixels) inside images (h, w).

    Raises:
        UsageError: a box is not finite.
    """
    corners = cxcywh_to_xyxy(finite(boxes))
    return [
        inside(own * own.new_tensor([w, h, w, h]), (h, w))
        for own, (h, w) in zip(corners, sizes, strict=True)
    ]


def inside(boxes: Tensor, size: tuple[int, int]) -> Boxes:
    """The part of (N, 4) boxes (xyxy pixels) in the image; a side that vanishes becomes a pixel."""
    limit = boxes.new_tensor([size[1], size[0]])
    low, high = (torch.minimum(t.clamp(min=0), limit) for t in (boxes[:, :2], boxes[:, 2:]))
    gone = high - low < EMPTY
    low = torch.where(gone, torch.minimum(low, limit - 1), low)
    return Boxes(torch.cat([low, torch.where(gone, low + 1, high)], dim=1))


def _pooled(heads: nn.Module, features: Mapping[str, Tensor], regions: list[Boxes]) -> Tensor:
    """(R, C) what the predictor gets to see of the regions of all images."""
    if isinstance(heads, Res5ROIHeads):
        maps = [features[name] for name in heads.in_features]
        return heads._shared_roi_transform(maps, regions).mean(dim=[2, 3])
    maps = [features[name] for name in heads.box_in_features]
    return heads.box_head(heads.box_pooler(maps, regions))


def _answers(predictor, found, regions: list[Boxes], sizes, shape) -> Predictions:
    """One stage's output as (1, B, N, ...); gradients go through scores and deltas."""
    scores, deltas = found
    batch, count = shape
    sigmoid = getattr(predictor, "use_sigmoid_ce", False)  # Detectron2 after 0.6
    logits = foreground_logits(scores, sigmoid=sigmoid)
    corners = predictor.box2box_transform.apply_deltas(deltas, Boxes.cat(regions).tensor)
    kinds = deltas.shape[1] // 4
    scale = corners.new_tensor([[w, h, w, h] for h, w in sizes])
    boxes = xyxy_to_cxcywh(corners.view(batch, count, kinds, 4) / scale[:, None, None])
    logits = logits.view(1, batch, count, -1)
    if kinds == 1:
        return Predictions(logits, boxes[None, :, :, 0])
    answers = Predictions(logits, boxes[None, :, :, 0], boxes[None])
    return answers.of_classes(logits.argmax(-1))


def _check_heads(stock: nn.Module) -> None:
    heads = getattr(stock, "roi_heads", None)
    if not isinstance(heads, StandardROIHeads | Res5ROIHeads) or isinstance(heads, RROIHeads):
        found = f"{type(heads).__name__}" if heads is not None else "none"
        raise UsageError(
            f"A {type(stock).__name__} cannot be asked at regions, which takes Detectron2's"
            f" StandardROIHeads, CascadeROIHeads or Res5ROIHeads, and it has {found}: take a"
            " Faster, Mask, Keypoint or Cascade R-CNN."
        )
    if type(stock).forward is not GeneralizedRCNN.forward:
        raise UsageError(
            f"A {type(stock).__name__} trains in a way of its own, which would be lost: take a"
            " GeneralizedRCNN."
        )
