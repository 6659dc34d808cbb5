"""Weights of any known file, fitted to a model: its names, its classes, its heads."""

import logging
import re
from collections.abc import Sequence

from torch import nn

from ..errors import CheckpointError
from .backbones import backbone_weights, described, same_backbone
from .caffe2_names import caffe2_names, is_caffe2
from .coverage import counted, is_optional
from .files import State
from .heads import (
    count_classes,
    count_heads,
    count_parts,
    one_if_equal,
    rows,
    spread,
    to_contiguous,
)
from .huggingface import huggingface_state, is_huggingface
from .pretraining import check_pixels, check_pretraining
from .published import Converted, converted
from .settings import Settings, check_settings, recipes_of

_log = logging.getLogger(__name__)
_DINO = "query_source.content"
_DENOISING = "denoising."
_LEVELS = "encoder.level_embedding"
_QUERIES = ("content", "anchors", "embedding.weight")


def adapted(
    state: State,
    model: nn.Module,
    source: str,
    *,
    strict: bool = False,
    stated: Sequence[Settings] = (),
) -> State:
    """A checkpoint's weights under the names, and with the classes and heads, of a model.

    A published detector is renamed, its 91 COCO category ids become 80 classes if the model has 80;
    an ImageNet backbone, and a Caffe2 detector of Detectron, get the names they have in the model;
    this project's own files, those of Detectron2's model zoo, and files of unknown kinds stay as
    they are. DINO's one set of heads is copied to each layer of a model that has one for each.
    For a model of the package transformers see :func:`huggingface_state`.

    Args:
        state: weights by the names in the file.
        model: the model that they are for.
        source: the file's name, for messages.
        strict: whether all of it has to fit; otherwise heads of other classes, and layers, queries
            and levels that only one of the two has, are left to be trained anew, with a warning.
        stated: settings that the file states beside the weights, see
            :func:`~kddetr.checkpoint.settings.stated_settings`.

    Raises:
        CheckpointError: a published file with missing or unknown names, of another detector or with
            another backbone; a file of another embed_dim, or whose weights need other settings than
            the model's; a backbone that was trained on other pixels, see :func:`check_pretraining`;
            ``strict`` and other classes, layers, queries or levels.
    """
    if is_huggingface(model):
        return huggingface_state(state, model, source, strict=strict)
    check_pixels(state, model, source, strict=strict)
    check_pretraining(state, model, source)
    if is_caffe2(state):
        _log.info("%s is recognised as a Caffe2 model of Detectron.", source)
        state = caffe2_names(state, source)
    own = model.state_dict()
    found = converted(state, source)
    if found is not None:
        _log.info("%s is recognised as %s.", source, found)
        state = found.state
        if found.classes == 91 and count_classes(own) == 80:
            _log.info("%s: the 80 classes of COCO are taken from 91 category ids.", source)
            state = to_contiguous(state)
    elif (bare := backbone_weights(state, model)) is not None:
        _log.info("%s is recognised as a backbone's weights.", source)
        state = bare
        _check_backbone(state, own, source, refuse=False)
    theirs, ours = count_heads(state), count_heads(own)
    if theirs and ours:
        return _of_transformer(state, model, source, found, stated, strict=strict)
    if not theirs and not ours:  # the classes of two R-CNNs; their names show what else differs
        _check_sizes(state, own, source, strict=strict)
    return state


def _of_transformer(
    state: State,
    model: nn.Module,
    source: str,
    found: Converted | None,
    stated: Sequence[Settings],
    *,
    strict: bool,
) -> State:
    """A transformer's weights, under this project's names, for another one."""
    own = model.state_dict()
    theirs, ours = _kinds(state), _kinds(own)
    if found is not None and not theirs <= ours:
        raise CheckpointError(
            f"{source} is {found.origin}, and the model is another detector; take the config of the"
            " detector in the file."
        )
    _check_backbone(state, own, source, refuse=found is not None)
    _check_sizes(state, own, source, strict=strict)
    heads = ""
    if found is not None or (_DINO in state and _DINO in own):
        state, heads = _fit_heads(state, own, source)
    if found is not None or theirs == ours:
        recipes = recipes_of(found and found.origin, stated, source)
        what = str(found) if found is not None else "a detector of this project"
        check_settings(getattr(model, "settings", {}), recipes, heads, source, what)
    if found is None:
        return state
    if not any(name.startswith(_DENOISING) for name in own):
        state = {k: v for k, v in state.items() if not k.startswith(_DENOISING)}
    _check_names(state, own, source, found)
    return state


def _kinds(state: State) -> set[str]:
    """Names that tell one detector from another, whatever its number of layers."""
    return {
        re.sub(r"\d+", "N", name)
        for name in state
        if ".cross_attention." in name
        or (name.startswith("query_source.") and not name.startswith("query_source.proposals."))
    }


def _check_backbone(state: State, own: State, source: str, *, refuse: bool) -> None:
    """Refuse, or warn of, another backbone than the model's: little of it would be loaded."""
    if same_backbone(state, own):
        return
    difference = f"{source} has {described(state)} and the model {described(own)}"
    if refuse:
        raise CheckpointError(
            f"{difference}; take a config with the file's backbone, or a file with the model's."
        )
    _log.warning("%s: only what fits of that backbone is loaded.", difference)


def _check_sizes(state: State, own: State, source: str, *, strict: bool) -> None:
    """Refuse another embed_dim; refuse any other size with ``strict``, and warn of it otherwise."""
    ours = sizes(own)
    for option, count in sizes(state).items():
        if not (count and ours[option]) or count == ours[option]:
            continue
        difference = f"{source} has {option}={count} and the model {ours[option]}"
        if strict or option == "embed_dim":
            raise CheckpointError(
                f"{difference}; set that number in the model's config, or take a file of the same"
                " size."
            )
        _log.warning("%s: what fits is loaded, the rest is trained anew.", difference)


def sizes(state: State) -> dict[str, int]:
    """Sizes of a detector by the option of a config that sets them; 0 where it has none."""
    queries = (rows(state, f"query_source.{name}") for name in _QUERIES)
    return {
        "embed_dim": rows(state, "encoder.layers.0.attention_norm.weight"),
        "encoder_layers": count_parts(state, "encoder.layers"),
        "decoder_layers": count_parts(state, "decoder.layers"),
        "num_queries": max(queries),
        "feature levels (len(in_features) + extra_levels)": rows(state, _LEVELS),
        "num_classes": count_classes(state),
    }


def _fit_heads(state: State, own: State, source: str) -> tuple[State, str]:
    """(the weights with as many heads as the model has, the override that is needed for that)."""
    theirs, ours = count_heads(state), count_heads(own)
    if theirs == ours:
        return state, ""
    if theirs == 1 and _DINO in state:
        _log.info("%s: its one set of heads is copied to %d decoder layers.", source, ours)
        return spread(state, ours), ""
    if theirs == 1:
        return state, "model.variant=plain"
    if ours == 1 and count_heads(state := one_if_equal(state)) != 1:
        return state, "model.shared_heads=False" if _DINO in state else "model.variant=refine"
    return state, ""


def _check_names(state: State, own: State, source: str, found: Converted) -> None:
    """Refuse a published file of which a part is missing, or has an unknown name.

    What only one of the two has because it has more layers or levels is no such part.
    """
    missing = [
        name
        for name in own
        if name not in state and not is_optional(name) and not _is_beyond(name, state, own)
    ]
    left_over = [
        found.names.get(name, name)
        for name in state
        if name not in own and not name.startswith("backbone.") and not _is_beyond(name, own, state)
    ]
    if problems := counted(missing, left_over):
        raise CheckpointError(
            f"{source} looks like {found.origin}, but its names differ: {'; '.join(problems)};"
            " take the file as its authors published it."
        )


def _is_beyond(name: str, state: State, other: State) -> bool:
    """Whether a weight of ``other`` is in a layer or level that ``state`` does not have."""
    if match := re.match(r"(encoder|decoder)\.(?:layers|\w+_heads)\.(\d{1,2})\.", name):
        return int(match[2]) >= count_parts(state, f"{match[1]}.layers")
    return name.startswith("neck.") and rows(state, _LEVELS) != rows(other, _LEVELS)
