"""A detection transformer as a Detectron2 model: backbone, neck, encoder, query source, decoder.

The families differ only in their parts: ``dab_detr``, ``deformable_detr`` and ``dino`` build them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from ...parallel import normaliser
from ...predictions import LAST
from ...ranges import one_of, positive, whole
from ...structures import EncodedDetector, Predictions, Queries
from ...transfer import to_device
from ..batch import losses_of_labelled_images
from ..inputs import check_inputs, check_precision, check_truth
from .batching import BACKBONE_BATCHING
from .criterion import BOXES, SetCriterion
from .denoising import ContrastiveDenoising
from .matcher import Target, target_of
from .memory import FeatureLevels, Memory
from .postprocess import detector_outputs, select_detections
from .queries import QuerySource

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class DetectionTransformer(nn.Module):
    """A detector that encodes images once and decodes any queries about them.

    Args:
        backbone: maps images (B, 3, H, W) to features by name.
        neck: projects those features to levels of width C.
        encoder: maps the levels to a :class:`Memory`.
        query_source: gives the detector's own queries and makes others of the same kind.
        decoder: maps a memory and queries to predictions.
        criterion: ground-truth losses.
        num_classes: K.
        num_detections: kept per image.
        denoising: makes additional queries from the ground truth in training (DINO); None: none.
        pixel_mean, pixel_std: of the RGB values, 0 to 255.
        backbone_batching: "by_size": images of the same size go through the backbone together, so
            that an image's features do not depend on its batch. "padded": all images, padded with
            zeros, go through it at once, as in the original code of the detectors.

    Raises:
        ValueError: a number is out of range, or there is no such batching.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        encoder: nn.Module,
        query_source: QuerySource,
        decoder: nn.Module,
        criterion: SetCriterion,
        num_classes: int,
        num_detections: int,
        denoising: ContrastiveDenoising | None = None,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
        backbone_batching: str = "by_size",
    ) -> None:
        super().__init__()
        one_of(BACKBONE_BATCHING, backbone_batching=backbone_batching)
        whole(1, num_classes=num_classes, num_detections=num_detections)
        if len(pixel_mean) != 3 or len(pixel_std) != 3:
            raise ValueError("pixel_mean and pixel_std must be three numbers, of red, green, blue.")
        positive(**{f"pixel_std of {n}": s for n, s in zip(("red", "green", "blue"), pixel_std)})
        self.backbone = backbone
        self.neck = neck
        self.encoder = encoder
        self.query_source = query_source
        self.decoder = decoder
        self.criterion = criterion
        self.denoising = denoising
        self.num_classes = num_classes
        self.num_detections = num_detections
        self.backbone_batching = backbone_batching
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)).view(3, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)).view(3, 1, 1), False)

    @property
    def query_parts(self) -> Mapping[str, int]:
        """Width of each learned embedding that the queries have beside their boxes, by name."""
        return self.query_source.query_parts

    @property
    def settings(self) -> dict[str, float]:
        """Numbers that change the predictions and that no weight's shape shows, by config key.

        They are saved beside the weights and compared when a checkpoint is loaded.
        """
        position, decoder = self.encoder.position_embedding, self.decoder
        found = {
            "temperature": float(position.temperature),
            "offset": float(position.offset),
            "eps": float(decoder.eps),
            "num_heads": next(
                int(m.num_heads) for m in decoder.modules() if hasattr(m, "num_heads")
            ),
            "backbone.dilation": any(
                isinstance(module, nn.Conv2d) and module.dilation != (1, 1)
                for module in self.backbone.modules()
            ),
        }
        if hasattr(decoder.position, "temperature"):
            found["anchor_temperature"] = float(decoder.position.temperature)
        return found

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pixel_mean.device

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile backbone, neck and every layer in place, each by itself, with the arguments of
        :func:`torch.compile`. The names of the weights stay.

        The layers share one compilation, and what lies between them (matching, proposals, the
        layout of the memory) is not worth one.
        """
        for part in (self.backbone, self.neck, *self.encoder.layers, *self.decoder.layers):
            part.compile(*args, **options)

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detectron2's contract: losses in training, ``[{"instances": ...}]`` otherwise.

        Raises:
            DivergedError: a predicted box is infinite or NaN.
        """
        memory = self.encode(inputs)
        if self.training:
            return self.losses(memory, inputs)
        own = self.queries(memory)
        predictions = EncodedDetector(self, memory).decode(own, layers=LAST)
        return detector_outputs(self.detections(predictions, memory.image_sizes), inputs)

    def encode(self, inputs: list[dict[str, Any]]) -> Memory:
        """The memory of raw images. How images of different sizes go through the backbone is
        ``backbone_batching``.

        Raises:
            UsageError: the batch is none, see :mod:`kddetr.detectors.inputs`.
        """
        check_precision(self.pixel_mean)
        check_inputs(inputs)
        images = [
            (to_device(x["image"], self.device).float() - self.pixel_mean) / self.pixel_std
            for x in inputs
        ]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        batched = BACKBONE_BATCHING[self.backbone_batching]
        return self.encoder(batched(images, self._features), sizes)

    def encode_features(
        self,
        features: Mapping[str, Tensor],
        paddings: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]] = (),
    ) -> Memory:
        """The memory of backbone features (B, C_i, H_i, W_i) by name that are already padded to one
        batch, with (B, H, W) paddings, True outside the image, for every level of the neck.
        """
        return self.encoder(FeatureLevels(self.neck(features), paddings), image_sizes)

    def feature_maps(self, memory: Memory) -> Mapping[str, Sequence[Tensor]]:
        """See :meth:`kddetr.structures.EncodedDetector.feature_maps`."""
        return memory.maps()

    def queries(self, memory: Memory) -> Queries:
        """The detector's own queries as a single group."""
        return self.query_source(memory)

    def make_queries(self, memory: Memory, boxes: Tensor) -> Queries:
        """See :meth:`kddetr.structures.QueryableDetector.make_queries`."""
        return self.query_source.make(memory, boxes)

    def random_queries(self, memory: Memory, images: int, count: int) -> Queries:
        """See :meth:`kddetr.structures.QueryableDetector.random_queries`."""
        return self.query_source.random(memory, images, count)

    def convert_queries(self, memory: Memory, points: Queries) -> Queries:
        """See :meth:`kddetr.structures.Detector.convert_queries`."""
        return self.query_source.convert(memory, points)

    def decode(
        self, memory: Memory, queries: Queries, layers: Sequence[int] | None = None
    ) -> Predictions:
        """The predictions at the queries after every decoder layer, (L, B, N, ...), or after those
        with the indices ``layers`` only.
        """
        return self.decoder(memory, queries, layers)

    def losses(self, memory: Memory, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Ground-truth losses of the labelled images, all 0 where no image has labels.

        Raises:
            UsageError: the ground truth does not fit, see :func:`check_truth`.
        """

        def of_labelled(memory: Memory, labelled: list[dict[str, Any]]) -> dict[str, Tensor]:
            for x in labelled:
                check_truth(x, self.num_classes)  # on the CPU, where reading a class does not wait
            targets = [target_of(x["instances"], self.device) for x in labelled]
            return self.target_losses(memory, targets)

        return losses_of_labelled_images(memory, inputs, of_labelled)

    def count_normalisers(self, inputs: list[dict[str, Any]]) -> None:
        """Ask for the normaliser of :meth:`losses`, without computing them, see
        :class:`kddetr.parallel.BatchInParts`.
        """
        boxes = float(sum(len(x["instances"]) for x in inputs if "instances" in x))
        normaliser(torch.full((), boxes, device=self.device), least=1, name=BOXES)

    def target_losses(self, memory: Memory, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses of the detector's own queries; those of the denoising queries have the suffix
        ``_dn``, those of the proposals ``_enc``.
        """
        own = self.queries(memory)
        if self.training and self.denoising is not None and self.denoising.number:
            denoising = self.denoising(targets)
            of_denoising, of_own = denoising.split(self.decode(memory, denoising.join(own)))
            further = denoising.losses(of_denoising, targets, self.criterion)
        else:
            of_own, further = self.decode(memory, own), {}
        pairs, suffixes = [(of_own, targets)], ("", "_enc")
        proposals = self.query_source.proposals
        if proposals is not None:
            pairs.append(proposals.predictions_and_targets(memory, targets))
        found = [
            self.criterion(*pair, matches=matches, suffix=suffix)
            for pair, matches, suffix in zip(pairs, self.criterion.match(pairs), suffixes)
        ]
        return dict(found[0] | further, **found[-1])

    def detections(
        self, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """Detections of the last layer, see :func:`select_detections`."""
        return select_detections(
            predictions.logits[-1], predictions.boxes[-1], image_sizes, count=self.num_detections
        )

    def _features(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised images to (B, C, H_i, W_i) for every level."""
        return self.neck(self.backbone(images))
