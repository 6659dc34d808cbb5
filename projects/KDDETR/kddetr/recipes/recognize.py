"""A teacher's file recognised: which detector is in it, and a config node that loads it strictly.

What a card states is taken from it. Of a file without one, the names of the weights say the family
and whose file it is, and their shapes say the rest, except for settings that no shape shows.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ..checkpoint import (
    card_in,
    converted,
    detector_in,
    read_checkpoint,
    weight_owner,
    weights_of,
)
from ..checkpoint.classes import CLASSES
from ..checkpoint.coverage import grouped
from ..checkpoint.files import OF_A_RUN, State
from ..checkpoint.loading import load_file
from ..checkpoint.origins import Recipe
from ..checkpoint.prefixes import without_prefix
from ..checkpoint.published import origin_of
from ..checkpoint.settings import overrides as as_overrides
from ..checkpoint.settings import recipes_of, stated_settings
from ..checkpoint.zoo import PREFIX, TRAINED
from ..detectors import huggingface_arguments, huggingface_detector, model_zoo_detector
from ..engine.config import apply_overrides, build, load_config, require_sections
from ..errors import CheckpointError, UsageError
from ..hub import PREFIX as HUB
from ..hub import hub_folder
from ..zoo import zoo_names
from .architecture import is_transformer, transformer_node
from .words import in_words


class BackboneFileError(CheckpointError):
    """A file that holds the weights of an ImageNet backbone, and no detector."""


KNOWN = (
    "DAB-DETR, Deformable DETR (plain, with box refinement, two-stage) and DINO of this project, of"
    " their authors, of detrex and of Hugging Face, real-time detectors of the package"
    " transformers, and detectors of Detectron2's model zoo"
)
# What published files have, where their origin says nothing else.
_PUBLISHED = {"num_heads": 8, "groups": 32, "num_queries": 300}
_REAL_TIME = ("rt_detr", "rt_detr_v2", "d_fine", "deimv2")


@dataclass(frozen=True)
class Recognized:
    """A detector's file, and how to build the detector.

    Attributes:
        file: the file, or its address.
        words: what is in it, for people: "DINO of detrex with a ResNet-50, 900 queries".
        model: the LazyConfig node of the detector; with it the file loads completely.
        classes: the class names in order; empty where the file does not say them.
        num_classes: how many classes there are.
        card: what the file's card says, or None.
        notes: sentences about what was assumed.
    """

    file: str
    words: str
    model: DictConfig
    classes: tuple[str, ...]
    num_classes: int
    card: Mapping[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def recognize(path: str, *, config: str = "", settings: Sequence[str] = ()) -> Recognized:
    """Recognise a detector's file.

    Args:
        path: a checkpoint, the output folder of a run, an address, a Hugging Face folder, or the
            name of a config in Detectron2's model zoo, which stands for the weights trained with
            it.
        config: a config file of the detector, or a name in the model zoo, for a file that does not
            say enough; empty: none.
        settings: ``key=value`` of the detector's own config, such as ``temperature=20``, which come
            before what the file states.

    Raises:
        CheckpointError: the file cannot be read, is of no known detector (the message says what it
            looks like), or does not fit the detector.
        UsageError: a setting is needed that neither the file nor ``settings`` states.
        ConfigError: ``config`` or a setting is wrong.
    """
    name = path.removeprefix(PREFIX).removeprefix(TRAINED)
    if name in zoo_names():
        node = L(model_zoo_detector)(name=name, boxes_only=True)
        return _checked(Recognized(f"{PREFIX}{TRAINED}{name}", "", node, (), 0), settings)
    path, notes = _file_of_run(path)
    found = Recognized(path, "", OmegaConf.create(), (), 0, notes=notes)
    if config:
        return _checked(replace(found, model=node_of_config(config)), settings)
    if _model_type(path) in _REAL_TIME:
        node = L(huggingface_detector)(**huggingface_arguments(path))
        return _checked(replace(found, model=node), settings)
    data = read_checkpoint(path)
    card = card_in(data, path)
    if card is not None and card["model"] is not None:
        node = OmegaConf.create(detector_in(card, path), flags={"allow_objects": True})
        return _checked(replace(found, model=node, card=card), settings)
    return _checked(_from_weights(found, data, _parsed(settings)), settings)


def _model_type(path: str) -> str:
    """The type of a model of the package transformers, on the Hub or in a folder; else empty."""
    folder = hub_folder(path, weights=False) if path.startswith(HUB) else path
    file = Path(folder, "config.json")
    if not file.is_file():
        return ""
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("model_type", ""))
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{file} is damaged: copy the model again.") from error


def _file_of_run(path: str) -> tuple[str, list[str]]:
    """The weights in the output folder of a run; any other path stays."""
    if "://" in path or not Path(path).is_dir():
        return path, []
    for name in OF_A_RUN:
        if Path(path, name).is_file():
            return str(Path(path, name)), [f"{name} of the run in {path} is taken."]
    return path, []


def node_of_config(config: str) -> DictConfig:
    """The detector of a config file, or of a name in the model zoo; of a distillation its student.

    Raises:
        ConfigError: the config cannot be loaded, or has no model.
    """
    if config in zoo_names():
        return L(model_zoo_detector)(name=config, boxes_only=True)
    cfg = load_config(config)
    require_sections(cfg, "model")
    node = cfg.model.get("student") or cfg.model
    # Its interpolations may refer to other sections, which the node leaves behind.
    return OmegaConf.create(
        OmegaConf.to_container(node, resolve=True), flags={"allow_objects": True}
    )


def _from_weights(
    found: Recognized, data: dict[str, Any], settings: Mapping[str, Any]
) -> Recognized:
    """The detector that names and shapes of the weights show."""
    path, said = found.file, list[str]()
    state = weights_of(data, path, say=said.append)
    state = without_prefix(state, lambda names: int(_is_known(names)), path, say=said.append)
    stated = stated_settings(data)
    published = converted(state, path)
    if published is not None:
        recipes = recipes_of(published.origin, stated, path)
        chosen = {**recipes[0].settings, **(stated[0] if stated else {}), **settings}
        if len(recipes) > 1 and recipes[0].mark and not settings:
            choices = [f"{as_overrides(_special(r, recipes))} for {r.mark}" for r in recipes]
            raise UsageError(
                f"{path} is {published.origin}, of which there are weights for several settings:"
                f" add {' or '.join(choices).replace('model.', 'teacher.')}."
            )
        node = transformer_node(published.state, {**_PUBLISHED, **chosen}, path)
        node.num_classes = 80 if published.classes == 91 else published.classes
        return replace(found, model=node, notes=[*found.notes, *said])
    if is_transformer(state):
        node = transformer_node(state, {**(stated[0] if stated else {}), **settings}, path)
        return replace(found, model=node, notes=[*found.notes, *said])
    raise _unknown(path, state)


def _special(recipe: Recipe, recipes: Sequence[Recipe]) -> dict[str, float]:
    """The settings of a recipe that are not those of all."""
    return {
        name: value
        for name, value in recipe.settings.items()
        if any(other.settings.get(name) != value for other in recipes)
    }


def _is_known(state: State) -> bool:
    return is_transformer(state) or origin_of(state) is not None


def _unknown(path: str, state: State) -> CheckpointError:
    """The error for a file of no detector that is known."""
    kind = CheckpointError
    if any(name.startswith(("proposal_generator.", "roi_heads.")) for name in state):
        looks, advice = "an R-CNN of Detectron2", _NAME_CONFIG
    elif any(name.startswith("head.cls_") for name in state):
        looks, advice = "a RetinaNet or FCOS of Detectron2", _NAME_CONFIG
    elif {"conv1.weight", "stem.conv1.weight", "patch_embed.proj.weight"} & state.keys():
        looks, advice = "an ImageNet backbone", "name the file of a trained detector"
        kind = BackboneFileError
    else:
        looks = f"no detector that is known here: its {len(state)} weights are {grouped([*state])}"
        advice = (
            "name its config with --teacher-config CONFIG.py, or record the answers of a detector"
            " of another kind (docs/recorded.md)"
        )
    return kind(f"{path} looks like {looks}. Known are {KNOWN}; {advice}.")


_NAME_CONFIG = (
    "name the config that it was trained with, --teacher-config"
    " COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml or a config file of this project"
)


def _checked(found: Recognized, settings: Sequence[str]) -> Recognized:
    """With the settings applied, words and classes, once the file loads completely."""
    cfg = OmegaConf.create({"teacher": found.model}, flags={"allow_objects": True})
    apply_overrides(cfg, [f"teacher.{text}" for text in settings])  # as they were written
    model = without_memory(cfg.teacher)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*meta parameter in the current model")
        _, data = load_file(weight_owner(model), found.file, strict=True)
    return replace(
        found,
        model=cfg.teacher,
        words=in_words(cfg.teacher, model),
        classes=data.get(CLASSES, ()),
        num_classes=model.num_classes,
    )


def without_memory(node: DictConfig) -> nn.Module:
    """The detector of a node with weights that take no memory and have no values."""
    with torch.device("meta"):
        return build(node)


def _parsed(settings: Sequence[str]) -> dict[str, Any]:
    pairs = (text.partition("=") for text in settings)
    return {key: yaml.safe_load(value) for key, _, value in pairs}
