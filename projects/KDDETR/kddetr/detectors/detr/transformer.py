"""A detection transformer as a Detectron2 model: backbone, neck, encoder, queries, decoder.

Which family it is, its parts say; ``dab_detr``, ``deformable_detr`` and ``dino`` put them together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from torch import Tensor, nn

from ...boxes import xyxy_to_cxcywh
from ...structures import Predictions, Queries
from ..inputs import check_classes, check_images
from .criterion import SetCriterion
from .denoising import ContrastiveDenoising, DenoisingQueries
from .matcher import Target
from .memory import FeatureLevels, Memory, pad_together
from .postprocess import select_detections

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)


class DetectionTransformer(nn.Module):
    """Encode once, decode any queries.

    Args:
        backbone: images (B, 3, H, W) to features by name.
        neck: those features to levels of the model's width.
        encoder: levels to :class:`Memory`.
        query_source: memory to the detector's own queries; its ``fresh`` makes unlearned ones.
        decoder: memory and queries to predictions.
        criterion: ground-truth losses.
        num_classes: K.
        num_detections: kept per image.
        denoising: makes further queries of the ground truth in training (DINO); None: none.
        pixel_mean, pixel_std: of the RGB values, 0 to 255.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        neck: nn.Module,
        encoder: nn.Module,
        query_source: nn.Module,
        decoder: nn.Module,
        criterion: SetCriterion,
        num_classes: int,
        num_detections: int,
        denoising: ContrastiveDenoising | None = None,
        pixel_mean: Sequence[float] = IMAGENET_MEAN,
        pixel_std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.encoder = encoder
        self.query_source = query_source
        self.decoder = decoder
        self.criterion = criterion
        self.denoising = denoising
        self.num_classes = num_classes
        self.num_detections = num_detections
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)).view(3, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)).view(3, 1, 1), False)

    @property
    def query_parts(self) -> Mapping[str, int]:
        """Width of each learned part that the queries have beside their boxes, by name."""
        return self.query_source.parts

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
        return self.pixel_mean.device

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detectron2's contract: losses in training, ``[{"instances": ...}]`` otherwise."""
        memory = self.encode(inputs)
        if self.training:
            return self.losses(memory, inputs)
        answers = self.decode(memory, self.queries(memory)).last()
        detections = self.detections(answers, memory.image_sizes)
        return [
            {"instances": detector_postprocess(d, x.get("height", h), x.get("width", w))}
            for d, x, (h, w) in zip(detections, inputs, memory.image_sizes, strict=True)
        ]

    def encode(self, inputs: list[dict[str, Any]]) -> Memory:
        """Raw images to memory.

        Images of one size go through backbone and neck together, those of another size apart, and
        only their features are padded: a convolution or a group norm that saw padding would give
        an image other features in other company.

        Raises:
            UsageError: an input's image is not RGB.
        """
        check_images(inputs)
        images = [
            (x["image"].to(self.device).float() - self.pixel_mean) / self.pixel_std for x in inputs
        ]
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        parts, order = [], []
        for size in dict.fromkeys(sizes):
            members = [i for i, other in enumerate(sizes) if other == size]
            maps = self.neck(self.backbone(torch.stack([images[i] for i in members])))
            nothing = [m.new_zeros(len(m), *m.shape[-2:], dtype=torch.bool) for m in maps]
            parts.append(FeatureLevels(maps, nothing))
            order.append(members)
        return self.encoder(pad_together(parts, order), sizes)

    def encode_features(
        self,
        features: Mapping[str, Tensor],
        paddings: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]] = (),
    ) -> Memory:
        """Memory of features that some backbone computed, already padded to one batch.

        Args:
            features: (B, C_i, H_i, W_i) by name.
            paddings: (B, H, W) bool of every level of the neck, extra ones included.
            image_sizes: (h, w) in pixels.
        """
        return self.encoder(FeatureLevels(self.neck(features), paddings), image_sizes)

    def queries(self, memory: Memory) -> Queries:
        """This detector's own queries, one group."""
        return self.query_source(memory)

    def make_queries(self, memory: Memory, boxes: Tensor) -> Queries:
        """See :meth:`kddetr.structures.QueryableDetector.make_queries`."""
        return self.query_source.make(memory, boxes)

    def random_queries(self, memory: Memory, images: int, count: int) -> Queries:
        """See :meth:`kddetr.structures.EncodedDetector.random_queries`."""
        return self.query_source.random(memory, images, count)

    def convert_queries(self, memory: Memory, points: Queries) -> Queries:
        """See :meth:`kddetr.structures.Detector.convert_queries`."""
        return self.query_source.convert(memory, points)

    def decode(self, memory: Memory, queries: Queries) -> Predictions:
        """What this detector sees at the queries, after every layer."""
        return self.decoder(memory, queries)

    def losses(self, memory: Memory, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Ground-truth losses of the labelled images, all 0 when no image of the batch has labels.

        They are there even then: with several processes each must take part in what all of them
        sum up, and give every parameter a gradient.
        """
        labelled = [i for i, x in enumerate(inputs) if "instances" in x]
        if labelled:
            targets = [self._target(inputs[i]["instances"]) for i in labelled]
            return self.target_losses(memory.select(labelled), targets)
        labels = torch.empty(0, dtype=torch.int64, device=self.device)
        nothing = Target(labels, torch.empty(0, 4, device=self.device))
        losses = self.target_losses(memory.select([0]), [nothing])
        return {name: 0 * value for name, value in losses.items()}

    def target_losses(self, memory: Memory, targets: Sequence[Target]) -> dict[str, Tensor]:
        """Losses of the detector's own queries; ``_dn``: of noised ones, ``_enc``: of proposals."""
        own = self.queries(memory)
        if self.training and self.denoising is not None and self.denoising.number:
            losses = self._losses_with_denoising(memory, targets, own, self.denoising(targets))
        else:
            losses = self.criterion(self.decode(memory, own), targets)
        head = getattr(self.query_source, "proposals", None)
        if head is not None:
            losses |= self.criterion(*head.pairs(memory, targets), suffix="_enc")
        return losses

    def _losses_with_denoising(
        self, memory: Memory, targets: Sequence[Target], own: Queries, noised: DenoisingQueries
    ) -> dict[str, Tensor]:
        answers = self.decode(memory, noised.join(own))
        parts = answers.split({"noised": len(noised.queries), "own": len(own)})
        losses = self.criterion(
            parts["noised"],
            targets,
            matches=noised.matches(answers.num_layers),
            repeats=noised.groups,
            suffix="_dn",
        )
        if not any(len(target.labels) for target in targets):
            losses = {name: 0 * value for name, value in losses.items()}  # there was no noised box
        return self.criterion(parts["own"], targets) | losses

    def detections(self, answers: Predictions, sizes: Sequence[tuple[int, int]]) -> list:
        """Instances in pixels of the network input, from the last layer; see ``postprocess``."""
        return select_detections(
            answers.logits[-1], answers.boxes[-1], sizes, count=self.num_detections
        )

    def _target(self, instances) -> Target:
        height, width = instances.image_size
        check_classes(instances, self.num_classes)
        boxes = instances.gt_boxes.tensor.to(self.device).float()
        scale = boxes.new_tensor([width, height, width, height])
        return Target(instances.gt_classes.to(self.device), xyxy_to_cxcywh(boxes / scale))
