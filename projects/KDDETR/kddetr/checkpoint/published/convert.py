"""A published detector's file, whole or not at all, under this project's names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ...errors import CheckpointError
from ..coverage import grouped
from .backbone import backbone_names, depth_of, split
from .classes import count_classes, rows
from .heads import count_heads, one_if_equal, spread
from .names import join_parts, rename, sizes_of
from .origins import Origin, recognised

__all__ = ["Converted", "converted"]

# Counters nobody reads, and constants that come from the config.
_NO_WEIGHT = re.compile(r"(^|\.)(num_batches_tracked|total_params|total_ops|pixel_mean|pixel_std)$")
_LABELS = "denoising.label_embedding.weight"


@dataclass(frozen=True)
class Converted:
    """A detector's weights under this project's names, and where they come from."""

    origin: Origin
    state: dict[str, torch.Tensor]

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
        """Name of a config that builds such a detector with some backbone: `dino_5scale`."""
        refines = self.heads > 1 and self.origin.detector == "Deformable DETR"
        levels = {key.split(".")[2] for key in self.state if key.startswith("neck.levels.")}
        return self.origin.config + "_refine" * refines + "_5scale" * (len(levels) == 4)

    @property
    def backbone(self) -> str:
        """What configs call the backbone in the file: `r50`, `swin_l`; empty for another one."""
        if depth := depth_of(self.state):
            return f"r{depth}"
        patches = rows(self.state, "backbone.timm.patch_embed.proj.weight")
        return {96: "swin_t", 128: "swin_b", 192: "swin_l"}.get(patches, "")

    def __str__(self) -> str:
        heads = "one head for all layers" if self.heads == 1 else "a head for each layer"
        return f"{self.origin}, {self.classes} classes, {heads}"


def converted(
    state: Mapping[str, torch.Tensor], source: str, *, with_backbone: bool = True
) -> Converted | None:
    """A published detector's weights under this project's names.

    The tensors are those of `state`, except for the few that are put together from parts. Heads
    that are equal in all layers are taken once.

    Args:
        state: weights by the names in the file.
        source: the file's name, for messages.
        with_backbone: whether a file without any backbone is a file with a part missing.

    Returns:
        None when the names are not those of a published detector.

    Raises:
        CheckpointError: they are, but some are missing or left over, or two names of one weight
            carry different values; the message lists them as the file calls them.
    """
    state = {name: value for name, value in state.items() if not _NO_WEIGHT.search(name)}
    rest, bare, prefix = split(state)
    match = recognised(rest)
    if match is None:
        return None
    backbone, missing = backbone_names(bare, source) if bare else ({}, [])
    missing = match.missing + [f"{prefix}{name}" for name in missing]
    if with_backbone and not bare:
        missing.append("the whole backbone")
    if missing or match.unknown:
        problems = [
            f"{words} {len(names)}: {grouped(names)}"
            for words, names in (("missing", missing), ("left over", match.unknown))
            if names
        ]
        raise CheckpointError(
            f"{source} looks like {match.origin}, but not all of it agrees; {'; '.join(problems)}."
        )
    names = match.origin.names
    own = join_parts(rename(rest, names, source))
    own = one_if_equal(spread(own, sizes_of(rest, names).decoder_layers))
    if rows(own, _LABELS):
        # The DINO project's table has one row more than there are classes.
        own[_LABELS] = own[_LABELS][: count_classes(own)]
    own |= {f"backbone.{name}": value for name, value in backbone.items()}
    return Converted(match.origin, own)
