"""Detectron2's dense detectors as detectors that answer queries: a query is one of their cells.

They predict at every cell of every level whoever asks, so an answer is looked up: it is that of the
prediction that would be responsible for an object with the query's box.

Shape letters: B images, N queries, L levels, H x W cells, A anchors a cell, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from detectron2.modeling.meta_arch.fcos import FCOS
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn

from ...boxes import box_iou, xyxy_to_cxcywh
from ...errors import UsageError
from ...structures import Predictions, Queries
from .base import StockDetector, box_queries, finite

SMALLEST = 1.0  # pixels; a query's box is taken to have at least this width and height
REACH = 8  # strides; FCOS's level for objects whose half side is at most that, see FCOS's matching


@dataclass
class DenseMemory:
    """What is computed once per image, and what every answer is looked up in.

    Attributes:
        images: normalised and padded; ``image_sizes`` are (h, w) in pixels without the padding.
        features: L maps, what the head got.
        predictions: what the head said, L maps each: (B, A * K, H, W) class logits, (B, A * 4, H,
            W) box deltas, and of FCOS (B, 1, H, W) centerness logits.
    """

    images: ImageList
    features: list[Tensor]
    predictions: Sequence[list[Tensor]]

    def select(self, images: Sequence[int]) -> "DenseMemory":
        """The memory of the images with those indices; the same one where these are all."""
        sizes, images = self.images.image_sizes, list(images)
        if images == list(range(len(sizes))):
            return self
        chosen = ImageList(self.images.tensor[images], [sizes[i] for i in images])
        predictions = [[level[images] for level in kind] for kind in self.predictions]
        return DenseMemory(chosen, [level[images] for level in self.features], predictions)


@dataclass
class Level:
    """Where the predictions of a level are.

    Attributes:
        anchors: (H, W, A, 4) xyxy in pixels; those of a cell have one centre.
        stride: pixels from cell to cell.
        offset: of the first cell's centre, in strides.
        cells: (B, 2) how many columns and rows have their centre in the unpadded image, the first
            ones; at least 1.
    """

    anchors: Tensor
    stride: float
    offset: float
    cells: Tensor

    def nearest(self, centres: Tensor) -> Tensor:
        """Column and row, (B, N, 2), of the cell of the image nearest to (B, N, 2) pixels."""
        index = (centres / self.stride - self.offset).round().clamp(min=0)
        return torch.minimum(index.long(), self.cells[:, None] - 1)

    def covers(self) -> Tensor:
        """(B, H * W * A) bool, False for anchors of the padding's cells."""
        height, width, shapes, _ = self.anchors.shape
        index = torch.arange(max(height, width), device=self.cells.device)
        columns, rows = (index < self.cells[:, i, None] for i in (0, 1))
        known = rows[:, :height, None] & columns[:, None, :width]
        return known.flatten(1).repeat_interleave(shapes, dim=1)


class DenseQueryDetector(StockDetector):
    """A RetinaNet or FCOS of Detectron2 that can be asked at any box.

    Which prediction answers, among those whose cell is centred in the unpadded image:

    - RetinaNet: that of the anchor with the highest IoU with the box. Only one cell a level is
      looked at, the one nearest to the box's centre, and nothing is missed: what two boxes share
      along an axis only shrinks as their centres move apart, so for each shape the nearest anchor
      overlaps most.
    - FCOS: the level whose range the larger half side falls in, up to 8 strides, and there the cell
      nearest to the centre. The smallest boxes may lie between the cells; the nearest answers.

    A box that is centred outside of the image is moved to its edge, one without an area is taken
    for a pixel. The answer is (1, B, N, ...).

    The logits are those of the class branch. FCOS ranks its detections by
    sqrt(sigmoid(class) * sigmoid(centerness)), but a gap between class distributions should not be
    taken there: where the class is unlikely, the logit of that score is half of (log class + log
    centerness), which flattens the distribution over the classes like a temperature of 2, and
    lets the gap pull at the centerness, whose target is where the cell lies in its object and no
    class. Off the centre of an object the class branch itself is taught to say background. For the
    ranking of its own queries, the score is what counts.

    Args:
        stock: the model.
        num_queries: its own queries are that many of its boxes, those of the highest score, without
            non-maximum suppression.
        input_format: "RGB" or "BGR", the order of the channels that ``stock`` takes; None: what its
            attribute ``input_format`` says, which FCOS has not got.

    Raises:
        UsageError: the model is of another kind, trains in a way of its own, or does not say its
            order of channels.
    """

    def __init__(
        self, stock: nn.Module, *, num_queries: int = 300, input_format: str | None = None
    ) -> None:
        _check_kind(stock)
        super().__init__(stock, num_queries=num_queries, input_format=input_format)
        # The stock model keeps it as a plain number, which no checkpoint holds; this one is saved
        # beside the weights, so that a resumed run goes on with it. 0: there is none yet.
        kept = getattr(stock, "loss_normalizer", 0)
        self.register_buffer("loss_normalizer", torch.tensor(kept, dtype=torch.float64))

    def encode(self, inputs: list[dict[str, Any]]) -> DenseMemory:
        """Raw images to dense predictions."""
        images = self.stock.preprocess_image(self.in_own_order(inputs))
        found = self.stock.backbone(images.tensor)
        features = [found[name] for name in self.stock.head_in_features]
        return DenseMemory(images, features, self.stock.head(features))

    @torch.no_grad()
    def queries(self, memory: DenseMemory) -> Queries:
        """The boxes of the highest scores; the whole image where an image has fewer than others.

        They are clipped to the image, and those of nothing in it are left out.

        Raises:
            UsageError: a predicted box is not finite.
        """
        levels, sizes = self._levels(memory), memory.images.image_sizes
        anchors = torch.cat([level.anchors.flatten(0, 2) for level in levels])
        covered = torch.cat([level.covers() for level in levels], dim=1)
        scores = torch.cat(self._scores(memory), dim=1)
        deltas = torch.cat([_by_anchor(m, 4) for m in memory.predictions[1]], dim=1)
        best = []
        for own, score, known, size in zip(deltas, scores, covered, sizes):
            boxes = Boxes(finite(self._boxes(own, anchors)))
            boxes.clip(size)
            score = score.masked_fill(~(known & boxes.nonempty()), -torch.inf)
            score, index = score.topk(min(self.num_queries, len(score)))
            best.append(boxes.tensor[index[score > -torch.inf]])
        return box_queries(best, sizes)

    def decode(self, memory: DenseMemory, queries: Queries) -> Predictions:
        """What the responsible predictions say, (1, B, N, ...); gradients go through all of it.

        Raises:
            UsageError: a box is not finite.
        """
        sizes = memory.images.image_sizes
        boxes = _in_pixels(queries.boxes, sizes)
        levels = self._levels(memory)
        cells = [level.nearest(boxes[..., :2]) for level in levels]
        anchors = [level.anchors[c[..., 1], c[..., 0]] for level, c in zip(levels, cells)]
        anchors = torch.stack(anchors, dim=2)  # (B, N, L, A, 4)
        choose = reaching_level if isinstance(self.stock, FCOS) else best_overlap
        level, shape = choose(boxes, anchors)
        image, query = _indices(level)
        logits, deltas = (
            torch.stack(
                [
                    kind.unflatten(1, (-1, width))[image, shape, :, c[..., 1], c[..., 0]]
                    for kind, c in zip(maps, cells)
                ]
            )[level, image, query]
            for maps, width in zip(memory.predictions, (self.num_classes, 4))
        )
        corners = self._boxes(
            deltas.flatten(0, 1), anchors[image, query, level, shape].flatten(0, 1)
        )
        corners = corners.view_as(boxes) / _scale(sizes, corners)
        return Predictions(logits.float()[None], xyxy_to_cxcywh(corners)[None])

    def losses(self, memory: DenseMemory, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The model's own losses of the labelled images, all 0 when no image has labels.

        They are divided by a running mean of the number of positive anchors. Images without labels
        are not counted in it.

        Raises:
            UsageError: a class that the model has not got.
        """
        self._restore_normalizer()
        losses = super().losses(memory, inputs)
        if any("instances" in x for x in inputs):
            self.loss_normalizer.fill_(self.stock.loss_normalizer)
        else:
            self._restore_normalizer()
        return losses

    def _restore_normalizer(self) -> None:
        if kept := self.loss_normalizer.item():
            self.stock.loss_normalizer = kept
        else:
            vars(self.stock).pop("loss_normalizer", None)  # the stock model makes it when needed

    def own_losses(
        self, memory: DenseMemory, inputs: list[dict[str, Any]], truth: list[Instances]
    ) -> dict[str, Tensor]:
        """As DenseDetector.forward computes them."""
        if isinstance(self.stock, FCOS):
            truth = [x if len(x) else _nowhere(x) for x in truth]
        return self.stock.forward_training(
            memory.images, memory.features, memory.predictions, truth
        )

    def _scores(self, memory: DenseMemory) -> list[Tensor]:
        """(B, H * W * A) a level, in the order of the highest score of a detection there."""
        logits, _, *centerness = memory.predictions
        best = [_by_anchor(x, self.num_classes).float().amax(-1) for x in logits]
        if not centerness:
            return best
        where = [_by_anchor(x, 1)[..., 0].float() for x in centerness[0]]
        return [x.sigmoid() * c.sigmoid() for x, c in zip(best, where)]

    def _levels(self, memory: DenseMemory) -> list[Level]:
        generator = self.stock.anchor_generator
        sizes = torch.tensor([(w, h) for h, w in memory.images.image_sizes], device=self.device)
        levels = []
        for boxes, feature, stride in zip(
            generator(memory.features), memory.features, generator.strides, strict=True
        ):
            height, width = feature.shape[-2:]
            # Centres are at (i + offset) * stride; the map may end before the image does.
            cells = (sizes / stride - generator.offset).ceil().long().clamp(min=1)
            cells = torch.minimum(cells, cells.new_tensor([width, height]))
            anchors = boxes.tensor.view(height, width, -1, 4)
            levels.append(Level(anchors, stride, generator.offset, cells))
        return levels

    def _boxes(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """(R, 4) deltas of (R, 4) anchors as xyxy in pixels."""
        return self.stock.box2box_transform.apply_deltas(deltas.float(), anchors)


def best_overlap(boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """RetinaNet: level and shape, (B, N) each, of the anchor with the highest IoU with the box.

    Args:
        boxes: (B, N, 4) ``cxcywh`` in pixels.
        anchors: (B, N, L, A, 4) xyxy in pixels, to choose from.
    """
    overlap = box_iou(boxes[:, :, None], xyxy_to_cxcywh(anchors.flatten(2, 3)))
    best = overlap.argmax(-1)
    return best // anchors.shape[3], best % anchors.shape[3]


def reaching_level(boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """FCOS: the first level that reaches from a cell at the box's centre to its farthest side.

    A level reaches less than 8 strides far, the last one everywhere (FCOS's matching; its lower
    bound, 4 strides, is the upper one of the level before).

    Args, Returns: as of :func:`best_overlap`; an anchor is a square as wide as the stride.
    """
    half = boxes[..., 2:].amax(-1) / 2
    strides = anchors[..., 0, 2] - anchors[..., 0, 0]
    level = (half[..., None] >= REACH * strides[..., :-1]).sum(-1)
    return level, torch.zeros_like(level)


def _in_pixels(boxes: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """(B, N, 4) ``cxcywh`` of the unit square in pixels, centred in the image and with an area."""
    boxes = finite(boxes)
    scale = _scale(sizes, boxes)
    centre, size = (boxes * scale).split(2, dim=-1)
    centre = torch.minimum(centre.clamp(min=0), scale[..., :2])
    return torch.cat([centre, size.clamp(min=SMALLEST)], dim=-1)


def _scale(sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """(B, 1, 4): w, h, w, h of images (h, w)."""
    return like.new_tensor([[[w, h, w, h]] for h, w in sizes])


def _by_anchor(maps: Tensor, width: int) -> Tensor:
    """(B, A * width, H, W) predictions as (B, H * W * A, width), in the order of the anchors."""
    return maps.unflatten(1, (-1, width)).permute(0, 3, 4, 1, 2).flatten(1, 3)


def _indices(like: Tensor) -> tuple[Tensor, Tensor]:
    """Number of the image (B, 1) and of the query (1, N) of every entry of a (B, N) tensor."""
    images, queries = (torch.arange(n, device=like.device) for n in like.shape)
    return images[:, None], queries[None]


def _nowhere(truth: Instances) -> Instances:
    """The truth of an image without objects, as an object of no area outside of it.

    No cell is responsible for it, so all are background, which is what no box at all means, and
    what Detectron2 0.6 cannot match.
    """
    nowhere = Instances(truth.image_size)
    nowhere.gt_boxes = Boxes(truth.gt_boxes.tensor.new_full((1, 4), -1e4))
    nowhere.gt_classes = truth.gt_classes.new_zeros(1)
    return nowhere


def _check_kind(stock: nn.Module) -> None:
    name = type(stock).__name__
    if not isinstance(stock, RetinaNet | FCOS):
        raise UsageError(
            f"Which prediction of a {name} is responsible for a box is not known here: take a"
            " RetinaNet or FCOS, or an R-CNN."
        )
    if type(stock).forward is not DenseDetector.forward:
        raise UsageError(
            f"A {name} trains in a way of its own, which would be lost: take a RetinaNet or FCOS"
            " whose forward is Detectron2's."
        )
    if not isinstance(stock.anchor_generator, DefaultAnchorGenerator):
        raise UsageError(
            f"The anchors of this {name} come from a {type(stock.anchor_generator).__name__}:"
            " take Detectron2's DefaultAnchorGenerator, whose cells have one centre."
        )
