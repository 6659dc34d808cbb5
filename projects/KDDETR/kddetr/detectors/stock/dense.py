"""Detectron2's dense detectors, RetinaNet and FCOS, as detectors that answer queries.

They predict a box and classes at every cell of every level, independently of any query. So the
answer to a query is looked up: it is the prediction that would be responsible for an object with
the query's box.

Shape letters: B images, N queries, L levels, H x W cells, A anchors per cell, K classes.
"""

from collections.abc import Mapping, Sequence
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
from ..batch import BatchMemory
from .base import StockDetector, box_queries, box_scale, check_forward, finite

SMALLEST = 1.0  # pixels; smaller widths and heights of a query's box are rounded up to it
REACH = 8  # strides; the largest half side of the objects that a level of FCOS learns


@dataclass
class DenseMemory(BatchMemory):
    """The dense predictions of a batch of images.

    Attributes:
        images: normalised and padded; ``image_sizes`` are (h, w) in pixels of the unpadded images.
        features: the input of the head, L maps.
        predictions: the output of the head, L maps each: (B, A * K, H, W) class logits, (B, A * 4,
            H, W) box deltas and, for FCOS, (B, 1, H, W) centerness logits.
    """

    images: ImageList
    features: list[Tensor]
    predictions: Sequence[list[Tensor]]

    def __len__(self) -> int:
        return len(self.images.image_sizes)

    def _select(self, images: list[int]) -> "DenseMemory":
        sizes = [self.images.image_sizes[i] for i in images]
        predictions = [[level[images] for level in kind] for kind in self.predictions]
        features = [level[images] for level in self.features]
        return DenseMemory(ImageList(self.images.tensor[images], sizes), features, predictions)


@dataclass
class Level:
    """The geometry of one level's predictions.

    Attributes:
        anchors: (H, W, A, 4) ``xyxy`` in pixels; all anchors of a cell have the same centre.
        stride: distance between neighbouring cells in pixels.
        offset: centre of the first cell in strides.
        cells: (B, 2) number of columns and of rows whose centre lies in the unpadded image, counted
            from the first one; at least 1.
    """

    anchors: Tensor
    stride: float
    offset: float
    cells: Tensor

    def nearest(self, centres: Tensor) -> Tensor:
        """(B, N, 2) centres x, y in pixels to column and row of the image's nearest cell."""
        index = (centres / self.stride - self.offset).round().clamp(min=0)
        return torch.minimum(index.long(), self.cells[:, None] - 1)

    def inside_image(self) -> Tensor:
        """(B, H * W * A) bool, True for the anchors of cells in the unpadded image."""
        height, width, anchors, _ = self.anchors.shape
        index = torch.arange(max(height, width), device=self.cells.device)
        columns, rows = (index < self.cells[:, i, None] for i in (0, 1))
        inside = rows[:, :height, None] & columns[:, None, :width]
        return inside.flatten(1).repeat_interleave(anchors, dim=1)


class DenseQueryDetector(StockDetector):
    """A RetinaNet or FCOS of Detectron2 that answers queries at any box.

    The answer is the prediction of one cell whose centre lies in the unpadded image:

    - RetinaNet: the prediction of the anchor with the highest IoU with the box. On each level only
      the cell nearest to the centre of the box is looked at. That is enough: for anchors of one
      shape, the overlap with the box shrinks along each axis as the centres move apart.
    - FCOS: the level for objects with a half side (the longer one) up to 8 strides, and there the
      cell nearest to the centre of the box. That cell may lie outside a very small box.

    A box whose centre lies outside the image is moved to the nearest point of the image, and a
    width or height below one pixel counts as one pixel.

    The logits are those of the class branch. FCOS ranks its detections by sqrt(sigmoid(class) *
    sigmoid(centerness)), and its own queries are ranked by that score too. But a distillation loss
    should not compare it. Where a class is unlikely, the logit of the score is half of (log class +
    log centerness): this flattens the distribution over the classes like a temperature of 2, and it
    trains the centerness, whose target is the position of the cell in its object and not the class.
    Away from the centre of an object the class branch itself learns to predict background.

    Its own queries are the boxes with the highest scores, without non-maximum suppression. For the
    arguments see :class:`StockDetector`; an FCOS has no attribute ``input_format``.

    Raises:
        UsageError: the model is neither a RetinaNet nor an FCOS, has a forward or anchors of its
            own, or the order of its channels is not known.
    """

    def __init__(
        self, stock: nn.Module, *, num_queries: int = 300, input_format: str | None = None
    ) -> None:
        super().__init__(stock, num_queries=num_queries, input_format=input_format)
        # The stock model has it as a plain number, which is not part of a checkpoint. This copy is
        # saved with the weights, so that a resumed run continues with it. 0: there is none yet.
        normalizer = getattr(stock, "loss_normalizer", 0)
        self.register_buffer("loss_normalizer", torch.tensor(normalizer, dtype=torch.float64))

    @staticmethod
    def check_stock(stock: nn.Module) -> None:
        name = type(stock).__name__
        if not isinstance(stock, RetinaNet | FCOS):
            raise UsageError(
                f"For a {name} it is not known which prediction is responsible for a box: take a"
                " RetinaNet or FCOS, or an R-CNN."
            )
        check_forward(stock, DenseDetector, "a RetinaNet or FCOS")
        if not isinstance(stock.anchor_generator, DefaultAnchorGenerator):
            raise UsageError(
                f"The anchors of this {name} come from a {type(stock.anchor_generator).__name__}:"
                " take Detectron2's DefaultAnchorGenerator, where the anchors of a cell share one"
                " centre."
            )

    def encode(self, inputs: list[dict[str, Any]]) -> DenseMemory:
        """The dense predictions for raw images."""
        images = self.stock.preprocess_image(self.in_stock_format(inputs))
        maps = self.stock.backbone(images.tensor)
        features = [maps[name] for name in self.stock.head_in_features]
        return DenseMemory(images, features, self.stock.head(features))

    def feature_maps(self, memory: DenseMemory) -> Mapping[str, Sequence[Tensor]]:
        """See :meth:`kddetr.structures.EncodedDetector.feature_maps`."""
        return {"neck": memory.features}

    @torch.no_grad()
    def queries(self, memory: DenseMemory) -> Queries:
        """The boxes with the highest scores, clipped to the image; empty ones are left out.

        Raises:
            UsageError: a predicted box is not finite.
        """
        levels, sizes = self._levels(memory), memory.images.image_sizes
        anchors = torch.cat([level.anchors.flatten(0, 2) for level in levels])
        inside = torch.cat([level.inside_image() for level in levels], dim=1)
        scores = torch.cat(self._scores(memory), dim=1)
        deltas = torch.cat([_by_anchor(m, 4) for m in memory.predictions[1]], dim=1)
        best = []
        for i, size in enumerate(sizes):
            boxes = Boxes(finite(self._boxes(deltas[i], anchors)))
            boxes.clip(size)
            score = scores[i].masked_fill(~(inside[i] & boxes.nonempty()), -torch.inf)
            score, index = score.topk(min(self.num_queries, len(score)))
            best.append(boxes.tensor[index[score > -torch.inf]])
        return box_queries(best, sizes)

    def decode(self, memory: DenseMemory, queries: Queries) -> Predictions:
        """The responsible predictions, (1, B, N, ...), with gradients.

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
        level, anchor = choose(boxes, anchors)
        image = torch.arange(len(level), device=level.device)[:, None]
        query = torch.arange(level.shape[1], device=level.device)

        def chosen(maps: Sequence[Tensor], width: int) -> Tensor:
            """(B, N, width): the outputs of each query's level, anchor and cell."""
            outputs = [
                m.unflatten(1, (-1, width))[image, anchor, :, c[..., 1], c[..., 0]]
                for m, c in zip(maps, cells)
            ]
            return torch.stack(outputs)[level, image, query]

        logits = chosen(memory.predictions[0], self.num_classes)
        deltas = chosen(memory.predictions[1], 4)
        anchors = anchors[image, query, level, anchor]
        corners = self._boxes(deltas.flatten(0, 1), anchors.flatten(0, 1)).view_as(boxes)
        boxes = xyxy_to_cxcywh(corners / box_scale(sizes, corners))
        return Predictions(logits.float()[None], boxes[None])

    def losses(self, memory: DenseMemory, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The model's own losses of the labelled images, all 0 where no image has labels.

        They are divided by a running mean of the number of positive anchors, in which unlabelled
        images do not count.
        """
        self._restore_normalizer()
        losses = super().losses(memory, inputs)
        if any("instances" in x for x in inputs):
            self.loss_normalizer.fill_(self.stock.loss_normalizer)
        else:
            self._restore_normalizer()
        return losses

    def _restore_normalizer(self) -> None:
        if value := self.loss_normalizer.item():
            self.stock.loss_normalizer = value
        else:
            vars(self.stock).pop("loss_normalizer", None)  # the stock model creates it when needed

    def stock_losses(
        self, memory: DenseMemory, inputs: list[dict[str, Any]], truth: list[Instances]
    ) -> dict[str, Tensor]:
        """The losses as DenseDetector.forward computes them."""
        if isinstance(self.stock, FCOS):
            truth = [x if len(x) else _object_outside(x) for x in truth]
        return self.stock.forward_training(
            memory.images, memory.features, memory.predictions, truth
        )

    def _scores(self, memory: DenseMemory) -> list[Tensor]:
        """(B, H * W * A) for each level, ordered like the best detection score of each anchor."""
        logits, _, *centerness = memory.predictions
        best = [_by_anchor(x, self.num_classes).float().amax(-1) for x in logits]
        if not centerness:
            return best
        centred = [_by_anchor(x, 1)[..., 0].float() for x in centerness[0]]
        return [x.sigmoid() * c.sigmoid() for x, c in zip(best, centred)]

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
        """(R, 4) deltas of (R, 4) anchors as ``xyxy`` boxes in pixels."""
        return self.stock.box2box_transform.apply_deltas(deltas.float(), anchors)


def best_overlap(boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """RetinaNet: level and number, (B, N) each, of the anchor with the highest IoU with each box.

    Args:
        boxes: (B, N, 4) ``cxcywh`` in pixels.
        anchors: (B, N, L, A, 4) ``xyxy`` in pixels, the candidates for each box.
    """
    overlap = box_iou(boxes[:, :, None], xyxy_to_cxcywh(anchors.flatten(2, 3)))
    best = overlap.argmax(-1)
    return best // anchors.shape[3], best % anchors.shape[3]


def reaching_level(boxes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """FCOS: the first level that reaches from a cell at the box's centre to its farthest side.

    A level reaches up to 8 strides, the last one any distance. (In FCOS's matching a level also has
    a lower bound of 4 strides, which is the upper bound of the level before.) Arguments and result
    are those of :func:`best_overlap`, with one anchor per cell, a square as wide as the stride.
    """
    half = boxes[..., 2:].amax(-1) / 2
    strides = anchors[..., 0, 2] - anchors[..., 0, 0]
    level = (half[..., None] >= REACH * strides[..., :-1]).sum(-1)
    return level, torch.zeros_like(level)


def _in_pixels(boxes: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """(B, N, 4) ``cxcywh`` in pixels, with the centre in the image and an area."""
    boxes = finite(boxes)
    scale = box_scale(sizes, boxes)
    centre, size = (boxes * scale).split(2, dim=-1)
    centre = torch.minimum(centre.clamp(min=0), scale[..., :2])
    return torch.cat([centre, size.clamp(min=SMALLEST)], dim=-1)


def _by_anchor(maps: Tensor, width: int) -> Tensor:
    """(B, A * width, H, W) predictions as (B, H * W * A, width), in the order of the anchors."""
    return maps.unflatten(1, (-1, width)).permute(0, 3, 4, 1, 2).flatten(1, 3)


def _object_outside(truth: Instances) -> Instances:
    """The ground truth of an image without objects, as one object without area outside the image.

    No cell is responsible for that object, so all cells are background. FCOS in Detectron2 0.6
    cannot match an image that has no boxes.
    """
    outside = Instances(truth.image_size)
    outside.gt_boxes = Boxes(truth.gt_boxes.tensor.new_full((1, 4), -1e4))
    outside.gt_classes = truth.gt_classes.new_zeros(1)
    return outside
