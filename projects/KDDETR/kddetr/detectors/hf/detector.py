"""A detector of the RT-DETR line in the package ``transformers`` as a detector of this project.

Everything that is computed is computed by the package's own modules, so that its weights, files and
losses are those that other people have. This file only asks them in another order: the images once,
and then any queries.

Shape letters: B images, N queries, S tokens, L decoder layers, K classes, C embedding width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import UsageError
from ...predictions import LAST, layer_numbers
from ...ranges import one_of, positive, whole
from ...structures import EncodedDetector, Predictions, Queries
from ..batch import MADE_OF_BOXES, for_all_images, losses_of_labelled_images
from ..detr.attention import forbidden_pairs
from ..detr.matcher import target_of
from ..detr.postprocess import detector_outputs, select_detections
from ..detr.traceable import best
from ..inputs import check_precision, check_truth
from .content import CONTENTS, PREDICTION, tokens_of_boxes
from .images import batch_of, check_size
from .losses import boxes_of_batch, package_losses
from .memory import Ranking, TokenMemory
from .package import check_internals, member_of
from .saving import save_folder


class HuggingFaceDetector(nn.Module):
    """An RT-DETR, RT-DETRv2, D-FINE or DEIMv2 of the package that answers queries at any box.

    Its own queries are the best tokens of the encoder: the box that a token predicts, and what the
    encoder's head sees of it as content. The content of a query at another box is that of the token
    which stands for the box, see :mod:`kddetr.detectors.hf.content`. It is always computed from
    this detector's own memory, so that nothing but boxes passes between teacher and student.

    It has no weights of its own: those of ``stock`` are trained, saved and loaded.

    Args:
        stock: the package's model.
        image_size: height and width that all images are resized to, multiples of the coarsest
            stride, which is 32.
        train_sizes: in training, the side of a square that a batch is resized to, drawn from this
            list for each batch (multi-scale training); empty: ``image_size``.
        pixel_mean, pixel_std: subtracted from and dividing the RGB values, 0 to 255.
        num_detections: kept per image.
        content: "prediction" or "anchor", which token gives a query at a given box its content.

    Raises:
        ValueError: an argument is out of range.
        UsageError: the model is none of the line, or its parts are others than those of the tested
            versions of the package.
    """

    query_parts: Mapping[str, int] = {}

    def __init__(
        self,
        stock: nn.Module,
        *,
        image_size: Sequence[int] = (640, 640),
        train_sizes: Sequence[int] = (),
        pixel_mean: Sequence[float] = (0.0, 0.0, 0.0),
        pixel_std: Sequence[float] = (255.0, 255.0, 255.0),
        num_detections: int = 300,
        content: str = PREDICTION,
    ) -> None:
        super().__init__()
        config = getattr(stock, "config", None)
        self.member = member_of(getattr(config, "model_type", type(stock).__name__))
        check_internals(stock, self.member)
        self.member.check(config)
        if config.learn_initial_query:
            raise UsageError(
                "learn_initial_query=True asks for learned content, which the package transformers"
                " cannot run: leave it out."
            )
        whole(1, num_detections=num_detections)
        one_of(CONTENTS, content=content)
        stride = max(config.feat_strides)
        check_size("image_size", image_size, stride)
        check_size("train_sizes", train_sizes, stride)
        if len(image_size) != 2 or len(pixel_mean) != 3 or len(pixel_std) != 3:
            raise ValueError(
                "image_size must be two numbers, height and width, and pixel_mean and pixel_std"
                " three, of red, green and blue."
            )
        positive(**{f"pixel_std of {n}": s for n, s in zip(("red", "green", "blue"), pixel_std)})
        self.stock = stock
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.train_sizes = list(train_sizes)
        self.num_detections = num_detections
        self.content = content
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor([*map(float, values)]).view(3, 1, 1), False)

    @property
    def num_classes(self) -> int:
        """K."""
        return self.stock.config.num_labels

    @property
    def num_layers(self) -> int:
        """L."""
        return self.stock.config.decoder_layers

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.pixel_mean.device

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile the encoder and every decoder layer in place, each by itself, with the arguments
        of :func:`torch.compile`.
        """
        model = self.stock.model
        for part in (model.encoder, *model.decoder.layers):
            part.compile(*args, **options)

    def forward(self, inputs: list[dict[str, Any]]) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Detectron2's contract: losses in training, ``[{"instances": ...}]`` otherwise.

        Raises:
            DivergedError: a predicted box is infinite or NaN.
        """
        memory = self.encode(inputs)
        if self.training:
            return self.losses(memory, inputs)
        last = EncodedDetector(self, memory).decode(self.queries(memory), layers=LAST)
        detections = select_detections(
            last.logits[-1], last.boxes[-1], memory.image_sizes, count=self.num_detections
        )
        return detector_outputs(detections, inputs)

    def encode(self, inputs: list[dict[str, Any]]) -> TokenMemory:
        """The memory of raw images of any sizes.

        Raises:
            UsageError: the batch is none, see :mod:`kddetr.detectors.inputs`.
        """
        check_precision(self.pixel_mean)
        images = batch_of(inputs, self.input_size(), self.device)
        return self.encode_images(images, tuple(tuple(x["image"].shape[-2:]) for x in inputs))

    def input_size(self) -> tuple[int, int]:
        """Height and width for the next batch, which are drawn in multi-scale training."""
        if not (self.training and self.train_sizes):
            return self.image_size
        side = self.train_sizes[int(torch.randint(len(self.train_sizes), ()))]
        return side, side

    def encode_images(
        self, images: Tensor, image_sizes: tuple[tuple[int, int], ...] = ()
    ) -> TokenMemory:
        """The memory of (B, 3, H, W) RGB values, 0 to 255, that have been resized already."""
        model = self.stock.model
        neck = self.member.neck(model, (images - self.pixel_mean) / self.pixel_std)
        encoded = self.member.encode(model, neck)
        # A level beyond the encoder's is computed from its coarsest map.
        last = len(encoded) - 1
        levels = [
            project(encoded[min(i, last)]) for i, project in enumerate(model.decoder_input_proj)
        ]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        shapes = tuple((level.shape[-2], level.shape[-1]) for level in levels)
        return TokenMemory(tokens, shapes, image_sizes, tuple(neck))

    def feature_maps(self, memory: TokenMemory) -> Mapping[str, Sequence[Tensor]]:
        """See :meth:`kddetr.structures.EncodedDetector.feature_maps`."""
        return memory.maps()

    def ranking(self, memory: TokenMemory) -> Ranking:
        """What the encoder's heads say about each token, computed once for a memory."""
        return memory.cached("ranking", lambda: self._rank(memory))

    def queries(self, memory: TokenMemory) -> Queries:
        """The encoder's best tokens as queries, without a gradient."""
        return self._own(memory)[0]

    def make_queries(self, memory: TokenMemory, boxes: Tensor) -> Queries:
        """Queries at (B, N, 4) boxes, or (1, N, 4) for all images, with the content of the tokens
        that stand for them.
        """
        boxes = for_all_images(boxes, len(memory), self.device)
        return Queries(boxes, content=self._content(memory, boxes))

    def random_queries(self, memory: TokenMemory, images: int, count: int) -> Queries:
        """Refused by a UsageError: the queries are made of boxes."""
        raise UsageError(MADE_OF_BOXES)

    def convert_queries(self, memory: TokenMemory, points: Queries) -> Queries:
        """The boxes of another detector's queries, in the same groups, with content of this
        detector's own.

        Raises:
            UsageError: the queries have a centre but no size.
        """
        points.require_sizes()
        return replace(points, content=self._content(memory, points.boxes), position=None)

    def decode(
        self, memory: TokenMemory, queries: Queries, layers: Sequence[int] | None = None
    ) -> Predictions:
        """The predictions at the queries after every decoder layer, (L, B, N, ...), or after those
        with the indices ``layers`` only.

        Raises:
            UsageError: the queries are of another kind of detector.
        """
        chosen = layer_numbers(layers, self.num_layers)
        chosen_layers = None if layers is None else tuple(layers)
        if not len(queries):  # which the package cannot reshape
            empty = memory.tokens.new_zeros(len(chosen), len(memory), 0, self.num_classes).float()
            return Predictions(empty, empty.new_zeros(*empty.shape[:3], 4), layers=chosen_layers)
        output = self.ask_decoder(memory, queries, every_layer=chosen != [self.num_layers - 1])
        found = [x.transpose(0, 1).float() for x in self.member.layers(output)]
        if layers is not None and len(found[0]) == self.num_layers:
            found = [torch.stack([x[i] for i in chosen]) for x in found]
        return Predictions(*found, layers=chosen_layers)

    def ask_decoder(self, memory: TokenMemory, queries: Queries, *, every_layer: bool) -> Any:
        """The package's own output of its decoder for some queries."""
        if queries.content is None or queries.boxes.shape[-1] != 4:
            raise UsageError(
                "These queries have no content, or no size, which this detector starts from: bring"
                " them into its kind with convert_queries, or make them with make_queries."
            )
        references = self._references(memory, queries.boxes)
        mask = _attention_mask(queries)
        return self._decode(memory, queries.content, references, mask, every_layer)

    def losses(self, memory: TokenMemory, inputs: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The losses of the labelled images as the package computes them, all 0 where no image has
        labels.

        Raises:
            UsageError: the ground truth does not fit, see :func:`check_truth`.
        """

        def of_labelled(memory: TokenMemory, labelled: list[dict[str, Any]]) -> dict[str, Tensor]:
            for x in labelled:
                check_truth(x, self.num_classes)  # on the CPU, where reading a class does not wait
            targets = [target_of(x["instances"], self.device) for x in labelled]
            labels = [{"class_labels": t.labels, "boxes": t.boxes} for t in targets]
            return package_losses(self, memory, labels)

        return losses_of_labelled_images(memory, inputs, of_labelled)

    def count_normalisers(self, inputs: list[dict[str, Any]]) -> None:
        """Ask for the boxes of the batch, see :class:`kddetr.parallel.BatchInParts`."""
        boxes_of_batch(sum(len(x["instances"]) for x in inputs if "instances" in x), self.device)

    def save(self, folder: str, classes: Sequence[str] = ()) -> None:
        """Write the detector as a folder of the package, which reads it without this project:
        ``AutoModelForObjectDetection`` and ``AutoImageProcessor``, or ``pipeline``.

        Args:
            folder: a new one, or one that was written before.
            classes: the names of the classes in order; empty: they stay as they are.

        Raises:
            UsageError: there are more or fewer names than classes.
            StorageError: the folder holds other files, or cannot be written.
        """
        save_folder(self, folder, classes)

    def decode_references(
        self, memory: TokenMemory, content: Tensor, references: Tensor, mask: Tensor | None
    ) -> Any:
        """The package's output, with the scores of every layer.

        Args:
            memory: of B images.
            content: (B, N, C).
            references: (B, N, 4) logits of reference boxes.
            mask: (N, N), added to the logits of self-attention; None: every query attends to all.
        """
        return self._decode(memory, content, references, mask, every_layer=True)

    def _decode(
        self,
        memory: TokenMemory,
        content: Tensor,
        references: Tensor,
        mask: Tensor | None,
        every_layer: bool,
    ) -> Any:
        starts = [0]
        for height, width in memory.shapes[:-1]:
            starts.append(starts[-1] + height * width)
        return self.member.decode(
            self.stock.model.decoder,
            every_layer,
            inputs_embeds=content.to(memory.tokens.dtype),
            encoder_hidden_states=memory.tokens,
            encoder_attention_mask=mask,
            reference_points=references,
            # On the CPU: only their product is read, in every layer, and a GPU would be waited for.
            spatial_shapes=torch.tensor(memory.shapes),
            spatial_shapes_list=list(memory.shapes),
            level_start_index=torch.tensor(starts),
        )

    def _rank(self, memory: TokenMemory) -> Ranking:
        model, tokens = self.stock.model, memory.tokens
        anchors, usable = model.generate_anchors(
            memory.shapes, device=tokens.device, dtype=self.pixel_mean.dtype
        )
        features = model.enc_output(usable.to(tokens.dtype) * tokens)
        logits = model.enc_score_head(features)
        boxes = model.enc_bbox_head(features) + anchors
        _, selected = best(logits.detach().amax(-1), self.stock.config.num_queries)
        return Ranking(features, logits, boxes, anchors, usable[..., 0], selected)

    def _own(self, memory: TokenMemory) -> tuple[Queries, Tensor]:
        """The detector's own queries, and the logits of their boxes; once for a memory."""

        def make() -> tuple[Queries, Tensor]:
            ranking = self.ranking(memory)
            logits = ranking.of_tokens(ranking.boxes, ranking.selected).detach().float()
            content = ranking.of_tokens(ranking.features, ranking.selected).detach()
            return Queries(logits.sigmoid(), content=content), logits

        return memory.cached("own", make)

    def _references(self, memory: TokenMemory, boxes: Tensor) -> Tensor:
        """The logits of (B, N, 4) boxes. Those of own queries are the encoder's own, because the
        decoder would enlarge the rounding of a sigmoid and its inverse.
        """
        own, logits = self._own(memory)
        return logits if boxes is own.boxes else torch.logit(boxes.detach().float().clamp(0, 1))

    def _content(self, memory: TokenMemory, boxes: Tensor) -> Tensor:
        ranking = self.ranking(memory)
        tokens = tokens_of_boxes(ranking, boxes, self.content)
        return ranking.of_tokens(ranking.features, tokens).detach()


def _attention_mask(queries: Queries) -> Tensor | None:
    """(N, N), -inf where a query may not attend to another; None: all queries are one group."""
    if len(queries.groups) < 2:
        return None
    forbidden = forbidden_pairs(queries)
    return torch.zeros_like(forbidden, dtype=torch.float).masked_fill(forbidden, -torch.inf)
