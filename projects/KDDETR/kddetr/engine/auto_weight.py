"""``model.weight=auto``: a weight at which the distillation pulls about as hard as the labels.

How hard a distillation pulls depends on its terms, its points and the detectors. Clipping and AdamW
take out the length of the whole gradient, so what the weight decides is the ratio of the two
gradients, see :mod:`.watch`. It is measured before the training, after a trial of a few steps: at
the weights from which the student starts, the ratio says little about the rest of a run (that of a
Faster R-CNN rises from 0.3 to between 1.6 and 3 within 30 steps). The weight is a number from then
on: in the log, in ``config.yaml`` and for :class:`~kddetr.KDDETR`.
"""

import itertools
import logging
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from ..checkpoint import Checkpointer
from ..errors import ConfigError
from .accumulation import parts_of
from .checks import resolve_device
from .classes import check_model
from .config.load import build
from .config.values import AUTO_WEIGHT, WEIGHT
from .freezing import freeze, frozen_norms
from .precision import amp_dtype
from .run_folder import config_of_run
from .seeding import kept_random_states, seed_everything
from .step import StepTrainer, step_settings
from .trainer import Trainer
from .watch import Watchable, gradient_ratio

_log = logging.getLogger(__name__)
BATCHES = 10  # whose median counts
TARGET = 1.0  # both pull equally hard


def is_auto(cfg: DictConfig) -> bool:
    """Whether the weight of a config's distillation is still to be measured."""
    return OmegaConf.select(cfg, WEIGHT) == AUTO_WEIGHT


def settle_weight(cfg: DictConfig, *, resume: bool = False) -> None:
    """Replace ``model.weight=auto`` by a number, in place; any other config stays as it is.

    The training that follows is that of a config with this number, bit for bit: the model that is
    measured is thrown away, and the random generators are left as they were.

    Args:
        cfg: a config as :func:`~kddetr.engine.load_config` returns it. All processes of a job call
            this together, and agree on the number.
        resume: whether a run is continued, which keeps the number that it had.

    Raises:
        ConfigError: no ratio can be measured, because no image has labels or nothing is distilled.
    """
    if not is_auto(cfg):
        return
    folder = cfg.train.output_dir
    if resume and os.path.isfile(os.path.join(folder, "config.yaml")):
        before = config_of_run(folder)
        if before is not None and not is_auto(before):
            cfg.model.weight = OmegaConf.select(before, WEIGHT, default=1.0)
            _log.info("model.weight=auto stays %g, as the run began.", cfg.model.weight)
            return
    with kept_random_states():
        model = starting_distiller(cfg, starting_student(cfg))
        batches = iter(Trainer.build_train_loader(cfg))
        train_trial(model, batches, cfg)
        ratios = gradient_ratios(model, itertools.islice(batches, BATCHES), cfg)
    _use_weight(cfg, ratios)


def trial_length(max_iter: int) -> int:
    """The steps of a trial: 2 % of the run, but at least 30, at most 500, and no more than it."""
    return min(max(max_iter // 50, 30), 500, max_iter)


def train_trial(model: nn.Module, batches: Iterator[list[dict]], cfg: DictConfig) -> None:
    """Train a distiller for the first steps of a run, with its optimizer and schedule.

    In a job of several processes each trains a copy of its own, on its own images.

    Args:
        model: a distiller, in training mode; its student is trained.
        batches: of this process.
        cfg: of the run.
    """
    device = resolve_device(cfg.train.device)
    optimizer = Trainer.build_optimizer(cfg, model)
    schedule = Trainer.build_lr_scheduler(cfg, optimizer)
    trainer = StepTrainer(
        model=model,
        data_loader=batches,
        optimizer=optimizer,
        **step_settings(cfg, model, device),
    )
    _train_mode(model, cfg)
    steps = trial_length(cfg.train.max_iter)
    _log.info("model.weight=auto: a copy of the student is trained for %d steps.", steps)
    with EventStorage(0) as storage:
        for trainer.iter in range(steps):
            trainer.run_step()
            schedule.step()
            storage.step()


def _use_weight(cfg: DictConfig, ratios: list[float]) -> None:
    """Write the weight that follows from the ratios at weight 1 into ``model.weight``.

    Raises:
        ConfigError: there are none, or their median is 0.
    """
    median = statistics.median(ratios) if ratios else 0.0
    if not median:
        raise ConfigError(
            "model.weight=auto compares the gradient of the distillation with that of the labels,"
            f" and {'the former is 0' if ratios else 'no batch had both'}: set model.weight to a"
            " number, such as 1."
        )
    cfg.model.weight = float(f"{TARGET / median:.3g}")
    _log.info(
        "model.weight=auto is %g: at weight 1 the gradient of the distillation was %.3g times that"
        " of the labels after these steps (median of %d batches, %.3g to %.3g), and it shall be %g"
        " times.",
        *(cfg.model.weight, median, len(ratios), min(ratios), max(ratios), TARGET),
    )


def starting_student(cfg: DictConfig) -> nn.Module:
    """The detector that a run trains, with the weights that it starts from, in training mode."""
    seed_everything(cfg.train.seed)
    student = Trainer.build_detector(cfg).to(resolve_device(cfg.train.device))
    freeze(student, cfg.train.freeze)
    Checkpointer(student).load(cfg.train.init_checkpoint, checkpointables=[])
    return student.train()


def starting_distiller(cfg: DictConfig, student: nn.Module) -> nn.Module:
    """The distiller around a student, as a run trains it; at weight 1 where that is ``auto``, and
    without the schedule of its weight, which may start from 0.

    Raises:
        ConfigError, UsageError: teacher and student do not go together.
    """
    changed: dict[str, Any] = {"weight": 1.0} if is_auto(cfg) else {}
    if cfg.model.get("weight_schedule") is not None:
        changed["weight_schedule"] = None
    model = build(cfg.model, student=student, **changed).to(resolve_device(cfg.train.device))
    check_model(cfg, model)
    _train_mode(model, cfg)
    return model


def _train_mode(model: nn.Module, cfg: DictConfig) -> None:
    model.train()
    for norm in frozen_norms(model, cfg.train.freeze):  # as FreezeHook keeps them
        norm.eval()


def gradient_ratios(
    model: Watchable, batches: Iterable[list[dict]], cfg: DictConfig
) -> list[float]:
    """The gradient ratio of each batch, or of its first part where a batch is trained in parts; see
    :class:`~kddetr.engine.watch.WatchHook`.

    Batch i draws the random numbers of iteration i. Weights and gradients stay as they are;
    statistics of BatchNorm see the batches.

    Args:
        model: a distiller, in training mode.
        batches: of this process.
        cfg: seed and precision.

    Returns:
        the finite ratios, those of all processes one after the other.
    """
    found: list[Tensor] = []
    weights = [p for p in model.student.parameters() if p.requires_grad]
    device = weights[0].device
    dtype = amp_dtype(cfg.train.amp, device, model)
    # Scaled as a run in float16 scales its loss at the start.
    scaler = torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)

    def observe(losses: Mapping[str, Tensor], distilled: Mapping[str, Tensor], *_: object) -> None:
        ratio = gradient_ratio(distilled, losses, weights, scaler.scale)
        if ratio is not None:
            found.append(ratio)

    model.observer = observe
    try:
        for i, batch in enumerate(batches):
            seed_everything(cfg.train.seed, i, comm.get_rank(), 1)
            with torch.autocast(device.type, dtype, dtype is not None), EventStorage(i):
                model(parts_of(batch, cfg.train.accumulate)[0])
    finally:
        model.observer = None
    own = [float(ratio) for ratio in found if ratio.isfinite()]
    return [ratio for ratios in comm.all_gather(own) for ratio in ratios]
