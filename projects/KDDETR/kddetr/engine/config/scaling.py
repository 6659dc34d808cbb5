"""Scaling a config's length, periods and learning rate to another batch size.

``train.batch_scaling.reference`` is the batch size that the numbers of a config are for. Where
``dataloader.train.total_batch_size`` differs from it, the iterations are multiplied by
reference / batch, so that the run processes the same number of images, ``optimizer.lr`` is
multiplied by a power of batch / reference, and ``train.ema.decay`` is raised to one.

A recipe says its reference itself. What another file sets after importing it is not known to be for
that batch, and stays as it is, unless that file says a reference of its own: then this holds for
what the file sets, and the recipe's for what it inherits.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import AnyNode, DictConfig, OmegaConf

# The learning rate is multiplied by (batch / reference) ** power. "sqrt" is the rule of adaptive
# optimizers, whose update does not grow with the gradient: the mean over k times as many images has
# sqrt(k) times less noise, and a rate sqrt(k) times larger restores it (Malladi et al., On the SDEs
# and scaling rules for adaptive gradient algorithms, 2022; their rule also changes betas and eps,
# which the DETR family does not). It is also the ratio between the published command of KD-DETR
# (2e-4 at 8 processes of 8 images) and the DAB-DETR project (1e-4 at 16 images), both with AdamW.
# "linear" is the rule of SGD (Goyal et al., 2017).
LEARNING_RATE_RULES = {"sqrt": 0.5, "linear": 1.0, "none": 0.0}

# The keys that count iterations and are multiplied.
LENGTHS = (
    "train.max_iter",
    "train.eval_period",
    "train.checkpointer.period",
    "train.ema.warmup",
    "lr_multiplier.warmup_iters",
)
_RATE = "optimizer.lr"
# The decay of an average is raised to the power of batch / reference, so that it reaches back over
# the same number of images (Busbridge et al., How to scale your EMA, 2023).
_DECAY = "train.ema.decay"
_SCALED = (*LENGTHS, _RATE, _DECAY)
BATCH = "dataloader.train.total_batch_size"
REFERENCE = "train.batch_scaling.reference"


class _ForReference(AnyNode):
    """A number that is known to be for a batch, until another value is assigned to it.

    It is an ordinary node of omegaconf with a note, which copies of a config keep.
    """

    batch: int | None = None

    def _set_value(self, value: Any, flags: dict[str, bool] | None = None) -> None:
        super()._set_value(value, flags)
        self.__dict__["batch"] = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "_ForReference":
        copied = _ForReference()
        self._deepcopy_impl(copied, memo)
        copied.__dict__["batch"] = self.batch
        return copied


def mark_reference(sections: Mapping[str, Any]) -> None:
    """Note, in a config file that has set the reference itself, that its numbers are for it. What
    it has inherited keeps its note.

    Args:
        sections: the names of a config file that has just been run; changed in place.
    """
    reference = _node(sections, REFERENCE)
    if reference is None or _batch(reference) or not isinstance(reference._value(), int):
        return
    for key in (*_SCALED, REFERENCE):
        node = _node(sections, key)
        if node is not None and (_batch(node) is None or not reference._value()):
            marked = _ForReference(node._value())
            marked.__dict__["batch"] = reference._value()
            node._get_parent()[key.rpartition(".")[2]] = marked


def references(cfg: DictConfig) -> dict[str, int | None]:
    """For which batch each number is, by dotted key; None where a file has set it without a word
    about the batch.
    """
    nodes = {key: _node(cfg, key) for key in _SCALED}
    return {key: _batch(node) for key, node in nodes.items() if node is not None}


def _batch(node: AnyNode | None) -> int | None:
    return node.batch if isinstance(node, _ForReference) else None


def _node(sections: Mapping[str, Any], key: str) -> AnyNode | None:
    """The node of a single value; None where there is none."""
    node: Any = sections
    for part in key.split("."):
        if isinstance(node, DictConfig):
            node = None if node._is_none() else node._get_node(part)
        else:
            node = node.get(part) if isinstance(node, Mapping) else None
    return node if isinstance(node, AnyNode) else None


def scale_to_batch(
    cfg: DictConfig, fixed: Collection[str] = (), own: Mapping[str, int | None] | None = None
) -> None:
    """Scale a config to its own batch size, in place.

    Afterwards the reference is that batch size, so that a second call, or loading the config that a
    run has saved, changes nothing. ``train.batch_scaling.note`` then lists the changes.

    Args:
        cfg: a config with a complete ``train`` section, whose values have been checked.
        fixed: dotted keys that stay as they are, because the user has set them.
        own: see :func:`references`, of the numbers whose batch is not the config's reference.
    """
    scaling, batch = cfg.train.batch_scaling, OmegaConf.select(cfg, BATCH)
    if not isinstance(batch, int) or batch < 1 or scaling.reference == 0:
        return
    given = [key for key in _SCALED if OmegaConf.select(cfg, key)]
    meant = {key: (own or {}).get(key) or scaling.reference for key in given}
    if {*meant.values()} == {batch}:
        return
    ratios = {key: batch / meant[key] for key in given}
    changes: dict[str, float] = dict(_lengths(cfg, ratios, fixed))
    if _RATE in given:
        power = LEARNING_RATE_RULES[scaling.learning_rate]
        rate = OmegaConf.select(cfg, _RATE) * ratios[_RATE] ** power
        changes[_RATE] = float(f"{rate:.6g}")
    if _DECAY in given:
        changes[_DECAY] = float(f"{OmegaConf.select(cfg, _DECAY) ** ratios[_DECAY]:.6g}")
    changed = []
    for key, value in changes.items():
        before = OmegaConf.select(cfg, key)
        if key in fixed:
            changed.append(f"{key} stays {before:g}")
        elif value != before:
            OmegaConf.update(cfg, key, value)
            changed.append(f"{key} {before:g} -> {value:g}")
    old = " and ".join(str(size) for size in sorted({*meant.values()} - {batch}))
    scaling.note = f"from batch {old} to {batch}: {', '.join(changed)}"
    scaling.reference = batch


def _lengths(
    cfg: DictConfig, ratios: Mapping[str, float], fixed: Collection[str]
) -> dict[str, int]:
    """The values that count iterations, by key, for batches that are ``ratios`` times as large."""
    found = {}
    for key in LENGTHS:
        if key in ratios:
            found[key] = max(1, math.floor(OmegaConf.select(cfg, key) / ratios[key] + 0.5))
    last, evaluation = "train.max_iter", "train.eval_period"
    period = cfg.train.eval_period
    if period and evaluation not in fixed and ratios[last] == ratios[evaluation]:
        # A whole number of periods stays one; otherwise the last evaluation would follow another
        # one after a few iterations.
        periods, rest = divmod(cfg.train.max_iter, period)
        found[last] = found[last] if rest else periods * found[evaluation]
    return found


def fit_to_length(cfg: DictConfig, fixed: Collection[str] = ()) -> None:
    """Shorten what would outlast the run, in place, and add it to ``train.batch_scaling.note``.

    The run is then saved at least once before its end. The period of the evaluation needs no
    change, because the last iteration is always followed by one.

    Args:
        cfg: as :func:`scale_to_batch` leaves it.
        fixed: as there. A warm-up among them is refused by the schedule where it is too long.
    """
    length, scaling, changed = cfg.train.max_iter, cfg.train.batch_scaling, []
    for key in ("train.checkpointer.period", "lr_multiplier.warmup_iters"):
        before = OmegaConf.select(cfg, key)
        if not isinstance(before, int) or before < length or length < 2:
            continue
        if key not in fixed:
            OmegaConf.update(cfg, key, length // 2)
            changed.append(f"{key} {before} -> {length // 2}")
        elif key == "train.checkpointer.period":
            changed.append(f"{key} stays {before}, so nothing is saved before the end")
    fitted = f"to a run of {length} iterations: {', '.join(changed)}"
    if changed and fitted not in scaling.note:
        scaling.note = "; ".join(note for note in (scaling.note, fitted) if note)
