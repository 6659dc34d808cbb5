"""Where a predictor has its detector from: the model card of a file, a config, or the caller."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from ..checkpoint import detector_in, input_in, local_file, read_card, weight_owner
from ..engine import Trainer, build, load_config
from ..engine.card import input_of
from ..errors import CheckpointError, ConfigError, UserError


@dataclass(frozen=True)
class Source:
    """A detector without its weights, and how its images are prepared.

    Attributes:
        model: the detector.
        prepared: the entry ``input`` of a card; None: it is not known.
        classes: names, empty where they are not known.
        card: the model card of the file, None without one.
    """

    model: nn.Module
    prepared: dict[str, Any] | None
    classes: Sequence[str] = ()
    card: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def bits(self) -> int | None:
        """How many bits of 16-bit files are used."""
        return (self.prepared or {}).get("bits")

    def augmentations(self, weights: str) -> list[Any]:
        """What resizes an image.

        Raises:
            CheckpointError, ConfigError: it is not known.
        """
        if self.prepared is None:
            raise ConfigError(
                f"How images are resized for {weights} is not known: give Predictor augmentations=,"
                " such as [ShortestEdge(short_edge_length=800, max_size=1333)] of kddetr.data, or"
                " [] for none; on the command line, name a config with dataloader.test by"
                " --config-file or --compare-config."
            )
        return instantiate(self.prepared["augmentations"])


def source_of(
    weights: str, *, config: str | Path | DictConfig | None, model: nn.Module | None
) -> Source:
    """The detector of a file: the one that is given, that of a config, or that of its model card.

    Raises:
        CheckpointError: the file has no card, and nothing else describes its detector.
        ConfigError: see :func:`~kddetr.engine.load_config`.
    """
    card = read_card(weights)
    if config is not None:
        cfg = config if isinstance(config, DictConfig) else load_config(str(config))
        model = model if model is not None else Trainer.build_detector(cfg)
        return Source(model, input_of(cfg, model), cfg.train.get("classes") or (), card)
    prepared = None
    if card is not None and card["input"] is not None:
        prepared = input_in(card, weights)
    if model is not None:
        return Source(model, prepared, (card or {}).get("classes", ()), card)
    if card is None:
        raise CheckpointError(
            f"{weights} has no model card, so which detector it is of is not known: give the config"
            f" that it was trained with{_beside(weights)} (in Python config=FILE; on the"
            " command line --config-file or --compare-config)."
        )
    return Source(_built(card, weights), prepared, card["classes"], card)


def _beside(weights: str) -> str:
    file = Path(local_file(weights)).with_name("config.yaml")
    return f", which is {file}" if file.is_file() else ""


def _built(card: dict[str, Any], weights: str) -> nn.Module:
    """The detector of a card."""
    node = detector_in(card, weights)
    try:
        model = build(node)
        if not isinstance(model, nn.Module):
            raise TypeError(f"it is a {type(model).__name__}")
    except (UserError, TypeError) as error:  # of an argument that this version does not have
        raise CheckpointError(
            f"The detector in the card of {weights} cannot be built by this version"
            f" ({str(error).rstrip('.')}): install the versions that its card names, or give its"
            " config."
        ) from error
    _check_statistics(card, model, weights)
    return model


def _check_statistics(card: dict[str, Any], model: nn.Module, weights: str) -> None:
    """Refuse a detector that normalises pixels otherwise than in its training."""
    owner = weight_owner(model)
    for name in ("pixel_mean", "pixel_std"):
        trained, own = (card["input"] or {}).get(name), getattr(owner, name, None)
        if trained is None or own is None:
            continue
        if not torch.allclose(own.flatten().float().cpu(), torch.tensor(trained), rtol=1e-5):
            raise CheckpointError(
                f"{weights} was trained with {name}={trained}, and this version builds its detector"
                f" with {own.flatten().tolist()}: give a config that sets {name}."
            )
