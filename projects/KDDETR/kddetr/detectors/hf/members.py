"""What differs between the members of the RT-DETR line, one small class each.

All of them have a backbone, a hybrid encoder, a head that ranks the encoder's tokens, and a decoder
that refines boxes. The code is that of the package ``transformers``; here it is only called.

Shape letters: B images, N queries, S tokens, L decoder layers, K classes, C embedding width.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from ...errors import UsageError


class RTDetr:
    """RT-DETR (Zhao et al., CVPR 2024), and RT-DETRv2, which differs inside its attention only."""

    parts = ("backbone", "encoder_input_proj")  # of the model, besides those that all members have

    def check(self, config: Any) -> None:
        """Raise a UsageError where the package cannot run a model of this configuration."""

    def neck(self, model: nn.Module, pixels: Tensor) -> list[Tensor]:
        """The backbone's features of (B, 3, H, W) pixels at the encoder's width, fine to coarse."""
        features = model.backbone.model(pixels).feature_maps
        return [project(x) for project, x in zip(model.encoder_input_proj, features, strict=True)]

    def encode(self, model: nn.Module, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        """The maps that leave the hybrid encoder."""
        return model.encoder(list(maps)).last_hidden_state  # it replaces entries of its list

    def decode(self, decoder: nn.Module, every_layer: bool, **inputs: Any) -> Any:
        """The decoder's output, with class logits after every layer or at least the last one."""
        return decoder(**inputs)

    def layers(self, output: Any) -> tuple[Tensor, Tensor]:
        """The logits (B, L, N, K) and boxes (B, L, N, 4) after each layer in an output."""
        return output.intermediate_logits, output.intermediate_reference_points

    def further_outputs(self, output: Any) -> dict[str, Tensor]:
        """What the loss of the package gets besides logits and boxes."""
        return {}


class DFine(RTDetr):
    """D-FINE (Peng et al., ICLR 2025): a box is the mean of four distributions over distances of
    its sides, which each layer refines.
    """

    def check(self, config: Any) -> None:
        if config.eval_idx not in (-1, config.decoder_layers - 1):
            raise UsageError(
                f"eval_idx={config.eval_idx} asks for a layer in the middle of the decoder, which"
                " the package transformers cannot build: leave it out, or set it to -1."
            )

    def decode(self, decoder: nn.Module, every_layer: bool, **inputs: Any) -> Any:
        with _scores_of_every_layer(decoder) if every_layer else contextlib.nullcontext():
            return decoder(**inputs)

    def layers(self, output: Any) -> tuple[Tensor, Tensor]:
        # There is one entry more than there are layers: the first layer's prediction before its
        # distributions, which only the package's own loss uses. In evaluation mode it is left out
        # unless all layers are scored.
        count = output.intermediate_predicted_corners.shape[1]
        return tuple(x[:, -count:] for x in RTDetr.layers(self, output))

    def further_outputs(self, output: Any) -> dict[str, Tensor]:
        return {
            "predicted_corners": output.intermediate_predicted_corners,
            "initial_reference_points": output.initial_reference_points,
        }


class DeimV2(DFine):
    """DEIMv2 (Huang et al., 2025): D-FINE's decoder on lighter encoders, with a class loss that is
    aware of the matching. Its backbone and the projection behind it are one module.
    """

    parts = ("conv_encoder",)

    def neck(self, model: nn.Module, pixels: Tensor) -> list[Tensor]:
        return list(model.conv_encoder(pixels))

    def encode(self, model: nn.Module, maps: Sequence[Tensor]) -> Sequence[Tensor]:
        return model.encoder(list(maps)).feature_maps


@contextlib.contextmanager
def _scores_of_every_layer(decoder: nn.Module) -> Iterator[None]:
    """Inside, a decoder of D-FINE scores all layers, which otherwise it does in training mode only.

    The flag is that of the decoder itself; its layers, and with them dropout, keep theirs.
    """
    was, decoder.training = decoder.training, True
    try:
        yield
    finally:
        decoder.training = was


MEMBERS: dict[str, Callable[[], RTDetr]] = {
    "rt_detr": RTDetr,
    "rt_detr_v2": RTDetr,
    "d_fine": DFine,
    "deimv2": DeimV2,
}
