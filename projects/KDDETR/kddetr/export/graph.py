"""The graph of an exported detection transformer: tensors in, ready detections out.

Shape letters: B images, H and W the padded size, D detections of an image, N queries, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.export import Dim

from ..detectors.detr.memory import FeatureLevels, Memory
from ..detectors.detr.postprocess import best_pairs
from ..detectors.detr.traceable import best
from ..detectors.detr.transformer import DetectionTransformer
from ..predictions import LAST

INPUTS = ("images", "sizes")
OUTPUTS = ("boxes", "scores", "classes")
RAW_OUTPUTS = ("logits", "raw_boxes")
PROPOSALS = "proposals"  # a raw output of the detectors that rank proposals


class DetectionGraph(nn.Module):
    """A detection transformer as a function of tensors, made of the detector's own modules.

    Args:
        detector: in evaluation mode.
        raw: also return the logits and boxes of all queries, and which proposals the queries are.
    """

    def __init__(self, detector: DetectionTransformer, *, raw: bool = False) -> None:
        super().__init__()
        self.detector = detector
        self.raw = raw

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what :meth:`forward` returns, in order."""
        ranked = (PROPOSALS,) if self.ranks_proposals else ()
        return OUTPUTS + (RAW_OUTPUTS + ranked) * self.raw

    @property
    def ranks_proposals(self) -> bool:
        """Whether the queries are the encoder's best proposals: two-stage detectors and DINO."""
        return self.detector.query_source.proposals is not None

    @property
    def size_divisor(self) -> int:
        """Height and width of a batch must be multiples of this; 1: any size."""
        return getattr(self.detector.backbone, "divisor", 1)

    def dynamic_shapes(self) -> tuple[dict, ...]:
        """The axes of the inputs that may differ from call to call.

        A backbone of timm that pads its images gets images whose sides are multiples of what it
        pads to, so that there is nothing to pad and to crop again.
        """
        step = self.size_divisor
        height, width = (
            Dim.DYNAMIC if step == 1 else step * Dim(name, min=2) for name in ("rows", "columns")
        )
        return {0: Dim.DYNAMIC, 2: height, 3: width}, {0: Dim.DYNAMIC}

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detections of a batch of images that are padded to the right and below.

        Args:
            images: (B, 3, H, W) RGB values, 0 to 255, floating-point; what is in the padding does
                not matter.
            sizes: (B, 2) int64 height and width in pixels of each image without its padding.

        Returns:
            (B, D, 4) boxes ``xyxy`` in pixels of each image, clipped to it; (B, D) scores in [0,
            1], descending; (B, D) int64 classes, counted from 0; with ``raw`` also (B, N, K) logits
            before the sigmoid, (B, N, 4) boxes ``cxcywh`` as fractions of each image and, of a
            detector that ranks proposals, (B, N) int64 tokens that became queries, best first.
        """
        return self._detections(self.memory(images, sizes), sizes)

    def at_proposals(
        self, images: Tensor, sizes: Tensor, proposals: Tensor
    ) -> tuple[tuple[Tensor, ...], float]:
        """The detections if these tokens (B, N) were the best proposals, and how wrong that is: by
        how much their scores, which are logits, differ at most from those of the best ones, rank by
        rank.
        """
        memory = self.memory(images, sizes)
        head = self.detector.query_source.proposals
        head.choose(memory, proposals)
        scores = head(memory).scores
        ranked, _ = best(scores, head.count)
        chosen = scores.gather(1, proposals)
        # The difference of two unusable proposals, whose scores are -inf, is no number.
        gap = (chosen - ranked).abs().masked_fill(chosen == ranked, 0.0).max().item()
        return self._detections(memory, sizes), gap

    def _detections(self, memory: Memory, sizes: Tensor) -> tuple[Tensor, ...]:
        detector = self.detector
        predictions = detector.decode(memory, detector.queries(memory), layers=LAST)
        logits, raw_boxes = predictions.logits[0], predictions.boxes[0]
        boxes, scores, classes = best_pairs(logits, raw_boxes, self.detector.num_detections)
        scale = sizes.flip(-1).repeat(1, 2)[:, None].to(boxes.dtype)  # width, height, width, height
        boxes = torch.minimum((boxes * scale).clamp(min=0.0), scale)
        if not self.raw:
            return boxes, scores, classes
        proposals = detector.query_source.proposals
        ranked = (proposals(memory).selected,) if proposals is not None else ()
        return (boxes, scores, classes, logits, raw_boxes, *ranked)

    def memory(self, images: Tensor, sizes: Tensor) -> Memory:
        """The encoded images; for the arguments see :meth:`forward`."""
        detector = self.detector
        (padding,) = paddings(images, sizes, [images])
        normalised = (images - detector.pixel_mean) / detector.pixel_std
        normalised = normalised.masked_fill(padding[:, None], 0.0)
        maps = detector.neck(detector.backbone(normalised))
        return detector.encoder(FeatureLevels(maps, paddings(images, sizes, maps)))


def paddings(images: Tensor, sizes: Tensor, maps: Sequence[Tensor]) -> list[Tensor]:
    """(B, H_i, W_i) bool for every map (B, C, H_i, W_i) of the images, True outside the image.

    As in DETR, a cell of a map is padding where the pixel at its top left corner is.
    """
    found = []
    for features in maps:
        outside = []
        for axis in (0, 1):
            pixels, cells = images.shape[2 + axis], features.shape[2 + axis]
            corner = torch.arange(cells, device=sizes.device) * pixels
            outside.append(corner >= sizes[:, axis, None] * cells)
        rows, columns = outside
        found.append(rows[:, :, None] | columns[:, None])
    return found
