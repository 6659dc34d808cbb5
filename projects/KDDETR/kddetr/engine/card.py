"""The model card of a run: its detector, how an image is prepared for it, and how it was trained.

See :mod:`kddetr.checkpoint.card` for its form. What is not known is None, and never an error: a run
is not lost because its card has a gap.
"""

import contextlib
import datetime
import hashlib
import json
import logging
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from ..checkpoint import CARD_FORMAT, described, local_file, read_card, weight_owner
from ..data import DetectionMapper, data_card
from ..errors import StorageError, UserError
from .average import FILE as AVERAGED_FILE
from .config.calls import needs_no_teacher, walk
from .config.load import build
from .evaluation.sets import AVERAGED

_log = logging.getLogger(__name__)
_MAPPERS = (DetectionMapper, DatasetMapper)
AP = "bbox/AP"


def run_card(
    cfg: DictConfig, model: nn.Module, classes: Sequence[str], data_loader: Any = None
) -> dict[str, Any]:
    """The card of the detector that a run trains.

    Args:
        cfg: the whole config.
        model: what it builds; a distiller counts as its student.
        classes: their names.
        data_loader: of the training, whose images are counted where it is this project's own.
    """
    streams = getattr(data_loader, "streams", ())
    data = {"unlabeled" if s.number else "labeled": data_card(s.records) for s in streams}
    return {
        "format": CARD_FORMAT,
        "model": _described_model(cfg),
        "input": input_of(cfg, model),
        "classes": list(classes),
        "trained": {
            "config": _whole(cfg),
            "data": data,
            "versions": versions(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        },
        "teacher": teacher_of(cfg),
        "results": {},
    }


def _whole(cfg: DictConfig) -> dict[str, Any]:
    """The config with its interpolations resolved, or as they are written where one of them leads
    to a section that was taken out, such as ``dataloader.test=null``.
    """
    try:
        return described(cfg, otherwise=repr)
    except OmegaConfBaseException:
        return described(OmegaConf.to_container(cfg, resolve=False), otherwise=repr)


def _described_model(cfg: DictConfig) -> dict[str, Any] | None:
    node = cfg.model.get("student", cfg.model)
    try:
        return described(node)
    except UserError as error:
        _log.warning("The model card will not describe the detector: %s", error)
        return None


def input_of(cfg: DictConfig, model: nn.Module) -> dict[str, Any] | None:
    """How the test images of a config are prepared, None where its mapper is of an unknown kind.

    Returns:
        ``format`` (the order of the channels that the detector takes), ``bits`` (of 16-bit files),
        ``augmentations`` (as a config has them), ``min_size`` and ``max_size`` (the short side in
        pixels, and the most that the long side may have, where the augmentations are such a
        resizing; else None), ``pixel_mean`` and ``pixel_std`` (from 0 to 255, in the order of the
        channels of the model inside).
    """
    node = OmegaConf.select(cfg, "dataloader.test.mapper")
    try:
        mapper = build(node) if OmegaConf.is_dict(node) else None
        steps = described(node.get("augmentations") or []) if type(mapper) in _MAPPERS else None
    except UserError:
        steps = None
    if steps is None:
        return None
    sides, owner = shortest_edge(mapper.augmentations.augs), weight_owner(model)
    statistics = {name: getattr(owner, name, None) for name in ("pixel_mean", "pixel_std")}
    return {
        "format": "RGB",
        "bits": node.get("bits"),
        "augmentations": steps,
        "min_size": sides and sides[0],
        "max_size": sides and sides[1],
        **{k: None if v is None else v.flatten().tolist() for k, v in statistics.items()},
    }


def shortest_edge(augmentations: Sequence[Any]) -> tuple[int, int] | None:
    """The short side and the most pixels of the long side to which images are resized; None where
    they are resized otherwise or not at all.
    """
    for step in augmentations:
        if isinstance(step, T.ResizeShortestEdge):
            return int(step.short_edge_length[0]), int(step.max_size)
    return None


def teacher_of(cfg: DictConfig) -> dict[str, Any] | None:
    """The name, the fingerprint and the AP of the teacher's file; None without a teacher.

    The AP is that of the preflight on this run's validation images, or else that in the card of the
    teacher's own file, or None.
    """
    node = cfg.model.get("teacher")
    if node is None or needs_no_teacher(cfg.model):
        return None
    tree = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else {}
    named = {p.rpartition(".")[2]: v for p, v in walk(tree) if isinstance(v, str)}
    file = named.get("checkpoint") or named.get("path") or ""
    found: dict[str, Any] = {"file": Path(file).name, "fingerprint": None, AP: None}
    with contextlib.suppress(UserError, OSError):
        card = Path(file, "card.json")  # of a teacher whose answers were recorded
        found["fingerprint"] = _digest(card if card.is_file() else Path(local_file(file)))
        found[AP] = (read_card(file) or {"results": {}})["results"].get(AP)
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        text = Path(cfg.train.output_dir, "preflight.json").read_text(encoding="utf-8")
        found[AP] = float(json.loads(text)["teacher"]["AP"])
    return found


def _digest(file: Path) -> str:
    """The BLAKE2b digest of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        while part := stream.read(2**24):
            digest.update(part)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages on which the predictions depend."""
    try:
        own = metadata.version("kddetr")
    except metadata.PackageNotFoundError:  # used from its folder
        own = "not installed"
    return {
        "kddetr": own,
        "detectron2": detectron2.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def results_of(results: Mapping[str, float], *, averaged: bool) -> dict[str, float]:
    """Those of the flat results of an evaluation that belong to the trained weights, or to the
    moving average of them, whose results have names such as ``ema/bbox/AP``.
    """
    return {
        name.removeprefix(AVERAGED): value
        for name, value in results.items()
        if name.startswith(AVERAGED) == averaged
    }


class ResultsInCard(HookBase):
    """Puts the results of the last evaluation into the cards of the final checkpoint and of the
    averaged weights, which were saved before them.
    """

    def after_train(self) -> None:
        trainer = self.trainer
        done = trainer.done
        if trainer.iter < trainer.max_iter or done == trainer.start_iter:
            return  # stopped, or there was nothing left to train
        flat = flatten_results_dict(trainer.last_results or {})
        if not flat or trainer.checkpointer.saved != ("model_final", done - 1):
            return
        try:
            own = results_of(flat, averaged=False)
            trainer.checkpointer.add_results("model_final", own, iteration=done - 1)
            if averaged := results_of(flat, averaged=True):
                saver = trainer.average_checkpointer
                saver.save_weights(AVERAGED_FILE, results=averaged, iteration=done - 1)
        except StorageError as error:
            _log.warning("%s Its card is without the results.", error)
