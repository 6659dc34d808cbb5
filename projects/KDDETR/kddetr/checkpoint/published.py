"""Published detectors' files under this project's names: recognised, renamed, put together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..errors import CheckpointError
from .backbones import described, own_names
from .coverage import is_optional
from .files import State
from .heads import count_classes, count_heads, count_parts, one_if_equal, rows, spread
from .origins import CONFIGS, ORIGINS, Origin

_BACKBONE = re.compile(
    r"(?:model\.)?backbone\."
    r"(?:0\.body\.|0\.|body\.|(?:conv_encoder\.)?model\.(?:_backbone\.)?)?"
)
_TEACHERS_ANCHORS = "aux_refpoints"  # in a student's file of the published KD-DETR code
_LABELS = "denoising.label_embedding.weight"


@dataclass(frozen=True)
class Converted:
    """A published detector's weights under this project's names, and where they come from.

    Args:
        origin: whose file it is.
        state: the weights.
        names: what the file calls each of them, those of the backbone excepted.
    """

    origin: Origin
    state: dict[str, torch.Tensor]
    names: dict[str, str]

    @property
    def classes(self) -> int:
        """Rows of the class heads."""
        return count_classes(self.state)

    @property
    def heads(self) -> int:
        """1 when all decoder layers share one, else the number of layers."""
        return count_heads(self.state)

    @property
    def config(self) -> str:
        """Name of a config that builds such a detector with some backbone: ``dino_5scale``."""
        refines = self.heads > 1 and self.origin.detector == "Deformable DETR"
        levels = count_parts(self.state, "neck.levels")
        name = CONFIGS[self.origin.detector]
        return name + "_refine" * refines + "_5scale" * (levels == 4)

    @property
    def backbone(self) -> str:
        """The backbone as configs call it: ``r50``, ``swin_l``."""
        words = described(self.state).removeprefix("a ").lower()
        return words.replace("resnet-", "r").replace("-", "_")

    def __str__(self) -> str:
        heads = "one head for all layers" if self.heads == 1 else "a head for each layer"
        return f"{self.origin}, {self.classes} classes, {heads}"


def origin_of(state: State) -> Origin | None:
    """Whose published detector a file is of, by the names of its weights; None: of nobody known."""
    for origin in ORIGINS.values():
        if set(origin.identifying_names.split()) <= state.keys():
            return origin
    return None


def converted(state: State, source: str) -> Converted | None:
    """A published detector's weights under this project's names.

    Whether weights are missing shows only in the comparison with a model, see :func:`adapted`. The
    tensors are those of ``state``, except for the few that are put together from parts. Heads that
    are equal in all layers are taken once.

    Returns:
        None when the names are not those of a published detector.

    Raises:
        CheckpointError: two names of one weight have different values, query, key and value have
            different shapes, or the backbone is neither a ResNet nor a Swin.
    """
    origin = origin_of(state)
    if origin is None:
        return None
    rest, bare = {}, {}
    for name, value in state.items():
        if match := _BACKBONE.match(name):
            bare[name[match.end() :]] = value
        elif not is_optional(name) and name != _TEACHERS_ANCHORS:
            rest[name] = value
    names = own_names_of(rest, origin)
    own = _joined(_merged(rest, names, source))
    if not origin.encoder_head_is_last:
        own = spread(own, count_parts(own, "decoder.layers"))
    own = one_if_equal(own)
    if rows(own, _LABELS):
        # The DINO project's table has one row more than there are classes.
        own[_LABELS] = own[_LABELS][: count_classes(own)]
    own |= {f"backbone.{name}": value for name, value in own_names(bare, source).items()}
    return Converted(origin, own, {ours: theirs for theirs, ours in reversed(names.items())})


def own_names_of(state: State, origin: Origin) -> dict[str, str]:
    """The names in a file of that origin -> this project's names."""
    names = {name: origin.rename(name) for name in state}
    layers = count_parts(names.values(), "decoder.layers")
    # Where all levels are in one list, those made by a 3 x 3 convolution are the extra ones.
    convolution = re.compile(r"neck\.levels\.(\d{1,2})\.0\.weight")
    strided = [
        int(match[1])
        for theirs, ours in names.items()
        if (match := convolution.fullmatch(ours)) and state[theirs].shape[-1:] == (3,)
    ]
    first_extra = min(strided, default=100)

    def numbered(name: str) -> str:
        level = re.fullmatch(r"neck\.levels\.(\d{1,2})\.(.+)", name)
        if level and int(level[1]) >= first_extra:
            return f"neck.extra.{int(level[1]) - first_extra}.{level[2]}"
        if origin.encoder_head_is_last:
            last = rf"decoder\.(class|box)_heads\.{layers}\."
            return re.sub(last, r"query_source.proposals.\1_head.", name)
        return name

    return {theirs: numbered(ours) for theirs, ours in names.items()}


def _merged(state: State, names: Mapping[str, str], source: str) -> dict[str, torch.Tensor]:
    """The values by our names, of which several of theirs may be one."""
    merged: dict[str, torch.Tensor] = {}
    for theirs, value in state.items():
        ours = names[theirs]
        known = merged.setdefault(ours, value)
        if known is not value and not _same(known, value):
            first = next(name for name in state if names[name] == ours)
            raise CheckpointError(
                f"{source} holds {first} and {theirs}, two names of one weight, with different"
                " values: take a complete file of the model."
            )
    return merged


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.shape != b.shape:
        return False
    # One storage is the rule: a saved model writes a shared tensor once.
    return (a.data_ptr() == b.data_ptr() and a.stride() == b.stride()) or torch.equal(a, b)


def _joined(state: State) -> dict[str, torch.Tensor]:
    """``name#0``, ``name#1``, ... put together to ``name``, along the first axis."""
    joined = {name: value for name, value in state.items() if "#" not in name}
    for name in dict.fromkeys(key.split("#")[0] for key in state if "#" in key):
        parts = [state[key] for key in sorted(state) if key.startswith(f"{name}#")]
        if len(parts) != 3 or len({part.shape for part in parts}) > 1 or not parts[0].ndim:
            shapes = ", ".join(str(list(part.shape)) for part in parts)
            raise CheckpointError(
                f"Query, key and value of {name} should be three weights of one shape, and the file"
                f" has {shapes}: take a complete file of the model."
            )
        joined[name] = torch.cat(parts)
    return joined
