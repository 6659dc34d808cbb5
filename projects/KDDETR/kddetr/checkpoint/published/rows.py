"""Pieces that the tables of names are put together from: parts that one author names alike."""

from collections.abc import Mapping

__all__ = [
    "Rows",
    "decoder",
    "encoder",
    "ffn",
    "mlp",
    "multihead",
    "norms",
    "sampling",
    "split_multihead",
]

Rows = list[tuple[str, str]]

_SAMPLING = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")


def encoder(theirs: str, pairs: Mapping[str, str]) -> Rows:
    """Names inside an encoder layer."""
    return _below(f"{theirs}.encoder.layers.{{e}}", "encoder.layers.{e}", pairs)


def decoder(theirs: str, pairs: Mapping[str, str]) -> Rows:
    """Names inside a decoder layer."""
    return _below(f"{theirs}.decoder.layers.{{d}}", "decoder.layers.{d}", pairs)


def _below(theirs: str, ours: str, pairs: Mapping[str, str]) -> Rows:
    return [(f"{theirs}.{a}", f"{ours}.{b}") for a, b in pairs.items()]


def mlp(theirs: str, ours: str, layers: int) -> Rows:
    """Linear layers are counted there; here the ReLUs between them count too."""
    return [(f"{theirs}.layers.{i}.*", f"{ours}.{2 * i}.*") for i in range(layers)]


def sampling(theirs: str, ours: str) -> dict[str, str]:
    """Deformable attention, whose parts everybody calls the same."""
    return {f"{theirs}.{name}.*": f"{ours}.{name}.*" for name in _SAMPLING}


def multihead(theirs: str, ours: str) -> dict[str, str]:
    """Query, key and value in one tensor there and here."""
    return {
        f"{theirs}.in_proj_*": f"{ours}.multihead.in_proj_*",
        f"{theirs}.out_proj.*": f"{ours}.multihead.out_proj.*",
    }


def split_multihead(theirs: str, ours: str, *outputs: str) -> dict[str, str]:
    """Query, key and value apart there, one below the other in one tensor here."""
    parts = {f"{theirs}.{x}_proj.*": f"{ours}.multihead.in_proj_*#{i}" for i, x in enumerate("qkv")}
    return parts | {f"{theirs}.{name}.*": f"{ours}.multihead.out_proj.*" for name in outputs}


def norms(*theirs: str) -> dict[str, str]:
    """Two of an encoder layer (attention, feed-forward) or three of a decoder layer (self, cross,
    feed-forward).
    """
    ours = ("attention_norm", "feed_forward_norm")
    if len(theirs) == 3:
        ours = ("self_norm", "cross_norm", "feed_forward_norm")
    return {f"{a}.*": f"{b}.*" for a, b in zip(theirs, ours, strict=True)}


def ffn(inner: str, outer: str, *activations: str) -> dict[str, str]:
    """Two linear layers, and the names of an activation that has a weight."""
    return {
        f"{inner}.*": "feed_forward.inner.*",
        f"{outer}.*": "feed_forward.outer.*",
        **{f"{name}.weight": "feed_forward.activation.weight" for name in activations},
    }
