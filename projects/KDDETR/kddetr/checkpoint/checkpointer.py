"""Detectron2's checkpointer with safe reading, atomic writing and a report of what did not fit.

What is saved is the detector alone: the file of a distilled student is a plain detector's file.
"""

import copy
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import CheckpointError, UserError
from .card import CARD
from .classes import CLASSES, write_card
from .files import atomic_write, read_checkpoint, shown
from .layouts import is_container
from .loading import deployable, load_file, weight_owner
from .resumable import checkpoint_to_resume
from .settings import SETTINGS

_log = logging.getLogger(__name__)


class WrapperState:
    """The weights of a training wrapper outside its detector.

    An example is a projection between embeddings of two sizes. Such weights are needed to
    resume and do not belong to the detector, so they are saved beside it.
    """

    def __init__(self, model: nn.Module):
        self._model = model.module if isinstance(model, DistributedDataParallel) else model

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The wrapper's own weights, empty for a plain detector."""
        inner = weight_owner(self._model)
        if inner is self._model:
            return {}
        prefixes = tuple(
            f"{name}." for name, module in self._model.named_modules() if module is inner
        )
        return {k: v for k, v in self._model.state_dict().items() if not k.startswith(prefixes)}

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Load it back.

        Raises:
            CheckpointError: names or shapes differ from the wrapper's own.
        """
        own = self.state_dict()
        differing = set(state) ^ set(own)
        differing |= {k for k in set(state) & set(own) if state[k].shape != own[k].shape}
        if differing:
            raise CheckpointError(
                f"The checkpoint's training state differs in {', '.join(sorted(differing)[:8])}; "
                "resume with the config that it was trained with."
            )
        # Not Module.load_state_dict: given a part of a state, a frozen batch norm of the detector
        # resets its statistics, because files without them were written by an early version.
        own = self._model.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value)


class Checkpointer(DetectionCheckpointer):
    """Saves and loads ``weight_owner(model)``, its settings, and any checkpointables.

    Args:
        model: the model that is trained or evaluated, wrapped or not.
        save_dir, checkpointables: as in Detectron2.
        save_to_disk: defaults to the main process only.
        classes: the names of the model's classes, in order, to save with its weights: in the file,
            or, where the file is Detectron2's, in a card beside it; by default those of ``card``.
        card: the model card to save with the weights, see :mod:`.card`; None: none is saved.

    Attributes:
        card: the same, for another checkpointer of the same run.
        saved: name and iteration of the last checkpoint that was saved here; None before.
    """

    saved: tuple[str, int | None] | None = None

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        classes: Sequence[str] = (),
        card: Mapping[str, Any] | None = None,
        **checkpointables: Any,
    ):
        super().__init__(
            weight_owner(model), save_dir, save_to_disk=save_to_disk, **checkpointables
        )
        self.card = card
        self._classes = list(classes or (card or {}).get(CLASSES, ()))
        self._is_stock = type(weight_owner(model)).__module__.startswith("detectron2.") or (
            weight_owner(model) is not deployable(model)
        )

    def save(self, name: str, **extra: Any) -> None:
        """Save the model, all checkpointables and ``extra`` as ``name``.pth, to be resumed from."""
        if self.save_dir and self.save_to_disk:
            states = {key: value.state_dict() for key, value in self.checkpointables.items()}
            self.save_weights(name, **states | extra)
            self.tag_last_checkpoint(f"{name}.pth")
            self.saved = name, extra.get("iteration")

    def save_weights(
        self, name: str, *, results: Mapping[str, float] | None = None, **extra: Any
    ) -> None:
        """Save the model, its settings, card and ``extra`` alone, from which a run does not
        resume.

        Args:
            name: of the file, without its ending.
            results: of an evaluation of these weights, by name, which go into the card.
            **extra: further entries of the file; ``iteration`` is that of the last step, from 0.
        """
        if not (self.save_dir and self.save_to_disk):
            return
        card = self._card_of(results or {}, extra.get("iteration"))
        data = {"model": self.model.state_dict()}
        if settings := getattr(self.model, "settings", None):
            data[SETTINGS] = dict(settings)
        path = os.path.join(self.save_dir, f"{name}.pth")
        os.makedirs(self.save_dir, exist_ok=True)
        if self._is_stock:
            write_card(path, card or (self._classes and {CLASSES: self._classes}))
        else:
            data |= {k: v for k, v in ((CLASSES, self._classes), (CARD, card)) if v}
        _log.info("Saving checkpoint to %s", path)
        atomic_write(path, lambda stream: torch.save(data | extra, stream))

    def add_results(self, name: str, results: Mapping[str, float], *, iteration: int) -> None:
        """Put the results of an evaluation into the card of the checkpoint that was saved last. A
        file that holds its card itself is written again.

        Args:
            name, iteration: of that checkpoint.
            results: by name, of these very weights.

        Raises:
            StorageError: it cannot be written; the file stays as it was.
        """
        if not (self.card and self.save_dir and self.save_to_disk):
            return
        if self._is_stock:
            path = os.path.join(self.save_dir, f"{name}.pth")
            write_card(path, self._card_of(results, iteration))
        else:
            self.save(name, results=results, iteration=iteration)

    def _card_of(self, results: Mapping[str, float], iteration: int | None) -> dict[str, Any]:
        """The card of the weights as they are now; empty where none is saved."""
        if not self.card:
            return {}
        done = {} if iteration is None else {"iterations": iteration + 1}
        numbers = {k: float(v) for k, v in results.items() if math.isfinite(v)}
        return {**self.card, "trained": {**self.card["trained"], **done}, "results": numbers}

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the file to resume from."""
        path = os.path.join(self.save_dir, "last_checkpoint")
        atomic_write(path, lambda stream: stream.write(last_filename_basename.encode()))

    def load(
        self, path: str, checkpointables: list[str] | None = None, *, strict: bool = False
    ) -> dict[str, Any]:
        """Load a file and log how much of the model it covers.

        Args:
            path: a checkpoint, a published detector's too, or an ImageNet file for the model's
                backbone; empty loads nothing.
            checkpointables: names of those to load too; all of them by default.
            strict: whether the file has to fit the model completely.

        Returns:
            What else the file holds; under ``classes`` the names of its classes, where known.

        Raises:
            CheckpointError: see :func:`load_file`.
        """
        if not path:
            _log.info("No checkpoint is loaded: the model starts from its initial weights.")
            return {}
        coverage, data = load_file(self.model, path, strict=strict)
        level = logging.INFO if coverage.complete else logging.WARNING
        _log.log(level, "%s: %s", path, coverage.describe())
        for key in self.checkpointables if checkpointables is None else checkpointables:
            if key in data:
                self._load_state(key, data.pop(key), path)
        return {
            key: value
            for key, value in data.items()
            if not is_container(key)
            and key not in (SETTINGS, CARD)
            and not isinstance(value, torch.Tensor | np.ndarray)
        }

    def _load_state(self, key: str, state: Any, path: str) -> None:
        """Load the state of a checkpointable."""
        try:
            if not isinstance(state, dict):
                raise TypeError(f"it is a {type(state).__name__}")
            # A copy: what was read is a view of the file, and an optimizer keeps what it gets.
            self.checkpointables[key].load_state_dict(copy.deepcopy(state))
        except UserError:
            raise
        except Exception as error:  # a state of other types has been seen to raise nearly all kinds
            words = shown(error) or type(error).__name__
            raise CheckpointError(
                f"The {key} state in {path} is damaged ({words}); write the name of another"
                " checkpoint into last_checkpoint, or start anew with train.init_checkpoint."
            ) from error

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the last checkpoint of ``save_dir`` if there is one, else load ``path``.

        Raises:
            CheckpointError: the last checkpoint holds weights only, or does not fit.
        """
        last = self.last_checkpoint() if resume else ""
        return self.resume(last) if last else self.load(path, checkpointables=[])

    def resume(self, last: str) -> dict[str, Any]:
        """Load weights and all checkpointables of a file; see :meth:`resume_or_load`."""
        absent = self.checkpointables.keys() - read_checkpoint(last).keys()
        if absent:
            raise CheckpointError(
                f"{last} holds weights but no {' and no '.join(sorted(absent))} state, so a run"
                " cannot resume from it; write the name of a numbered checkpoint into"
                " last_checkpoint, or start anew with train.init_checkpoint."
            )
        return self.load(last, strict=True)

    def last_checkpoint(self) -> str:
        """The file that resuming starts from, see :func:`checkpoint_to_resume`; it may warn.

        Raises:
            CheckpointError: there are checkpoints but none of them is whole.
        """
        return checkpoint_to_resume(self.save_dir)
