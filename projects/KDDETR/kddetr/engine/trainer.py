"""The Trainer: Detectron2's DefaultTrainer, built from a LazyConfig.

It trains any module that maps a batch to a dictionary of losses. It saves and evaluates the
detector inside of that module; a plain detector and a distiller are trained alike.
"""

import contextlib
import logging
import weakref
from itertools import repeat
from typing import Any

from detectron2.engine import DefaultTrainer, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.solver import LRMultiplier
from detectron2.utils import comm
from fvcore.common.param_scheduler import ParamScheduler
from omegaconf import DictConfig
from torch import nn, optim

from ..checkpoint import Checkpointer, WrapperState, deployable
from ..errors import ConfigError
from . import starting, stopping
from .accumulation import check_parts
from .agreement import all_or_none, require_same_config
from .average import moving_average
from .best import BestCheckpoint
from .card import run_card
from .checks import check_config, resolve_device
from .classes import check_model, record_classes
from .compilation import compile_detectors
from .config.calls import needs_no_teacher
from .config.load import build, require_sections
from .description import describe
from .distributed import broadcast_buffers, wrap_for_processes
from .early_stopping import EnoughTrained
from .evaluation.first_batches import FirstBatches
from .evaluation.sets import AVERAGED, best_metric_name, by_evaluation_set, has_test_data
from .freezing import freeze
from .optimizer_state import check_card, optimizer_card
from .run_hooks import build_hooks
from .seeding import seed_everything
from .step import StepTrainer, step_settings
from .watch import with_gap
from .writers import build_writers

_log = logging.getLogger(__name__)


class Trainer(DefaultTrainer):
    """Trains ``cfg.model``.

    Args:
        cfg: a config as :func:`load_config` returns it.

    Attributes:
        done: how many iterations the weights have been trained.
        resumed_batch: the batch of the checkpoint that was resumed from; None: unknown.
        can_evaluate: whether the config has test data and an evaluator.
        last_results: of the last evaluation, nested as in Detectron2; empty before.
        average: the moving average of the detector's weights; None: there is none.
        best: keeps the best weights; on the main process only, and only where there is a metric.

    Raises:
        ConfigError, DatasetError, CheckpointError: a mistake that the user can put right; where
            possible it is found before anything large is built.
    """

    def __init__(self, cfg: DictConfig):
        TrainerBase.__init__(self)  # DefaultTrainer's own constructor reads a CfgNode
        require_sections(cfg, "model", "optimizer", "lr_multiplier", "dataloader.train")
        require_same_config(cfg)
        self.cfg = cfg
        self.start_iter = self.done = 0
        self.resumed_batch: int | None = None
        self.max_iter = cfg.train.max_iter
        self.last_results: dict[str, Any] = {}
        with all_or_none():
            # resume_or_load checks init_checkpoint, where it loads it.
            check_config(
                cfg, check_init_checkpoint=False, check_best_metric=not self._has_own_results()
            )
        device = resolve_device(cfg.train.device)
        with all_or_none():
            data_loader = self.build_train_loader(cfg)
            check_parts(getattr(data_loader, "total_batch_size", None), cfg.train.accumulate)
            seed_everything(cfg.train.seed)  # initial weights do not depend on the loader's draws
            model = self.build_model(cfg).to(device)
            check_model(cfg, model)
            freeze(model, cfg.train.freeze)
            self.average = moving_average(cfg.train.ema, model)
            compile_detectors(cfg.train.compile, model)
            optimizer = self.build_optimizer(cfg, model)
            self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self._trainer = StepTrainer(
            model=wrap_for_processes(model, device, **cfg.train.ddp),
            data_loader=data_loader,
            optimizer=optimizer,
            **step_settings(cfg, model, device),
        )
        folder, card = cfg.train.output_dir, run_card(cfg, model, record_classes(cfg), data_loader)
        states = {"trainer": weakref.proxy(self), "wrapper": WrapperState(model)}
        self.checkpointer = Checkpointer(model, folder, card=card, **states)
        if self.average is not None:
            self.average_checkpointer = Checkpointer(self.average.module, folder, card=card)
        self.can_evaluate = has_test_data(cfg)
        metric = best_metric_name(cfg) if self.can_evaluate else ""
        self.best = None
        if metric and comm.is_main_process():
            averaged = metric.startswith(AVERAGED)
            saver = self.average_checkpointer if averaged else self.checkpointer
            self.best = BestCheckpoint(saver, metric, self.batch, mode=cfg.train.best_mode)
        self.register_hooks(self.build_hooks())
        if not self.can_evaluate:
            _log.warning("No test data or no evaluator is named: nothing is evaluated in this run.")
        elif metric != (cfg.train.best_metric or ""):
            _log.info("train.best_metric=%s means %s", cfg.train.best_metric, metric)
        if cfg.train.batch_scaling.note:
            _log.info("scaled %s", cfg.train.batch_scaling.note)
        _log.info(self.describe())

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the last checkpoint in ``train.output_dir``, or load
        ``train.init_checkpoint``; write ``config.yaml``.

        All processes have to start from the same.

        Raises:
            CheckpointError: the file is damaged, or does not fit the model or the optimizer.
            ConfigError: the config cannot continue the run, or another process starts from
                something else.
        """
        starting.start(self, resume=resume)

    def build_hooks(self) -> list[hooks.HookBase]:
        """The hooks of the run, see :mod:`.run_hooks`, which a subclass can add to."""
        return build_hooks(self)

    def build_writers(self) -> list:
        """The writers of the log line, of JSON and of TensorBoard events."""
        return build_writers(self.cfg.train.output_dir, self.max_iter)

    def train(self) -> dict[str, Any]:
        """Train to ``train.max_iter``; returns the results of the last evaluation.

        Raises:
            DivergedError: a loss became infinite or NaN.
            StorageError: the final checkpoint cannot be saved.
            Stopped: a signal, or the time limit, ended it early; what was trained is saved.
        """
        if self.start_iter >= self.max_iter:
            words = "Nothing is left to train: %d iterations are done, and train.max_iter is %d."
            _log.info(words, self.start_iter, self.max_iter)
        try:
            with stopping.after_step(), contextlib.suppress(EnoughTrained):
                TrainerBase.train(self, self.start_iter, self.max_iter)
        except stopping.Stopped as stopped:
            raise stopping.Stopped(
                stopped.number, rest=starting.save_stopped(self, stopped)
            ) from None
        return self.last_results

    def run_step(self) -> None:
        """One iteration."""
        try:
            super().run_step()
        except RuntimeError as error:
            # A loader whose workers do not outlive a signal: they are asked before the weights
            # change.
            if stopping.requested() and "DataLoader worker" in str(error):
                raise stopping.Stopped(stopping.requested(), between_steps=True) from error
            raise

    def after_step(self) -> None:
        """Count the iteration, and run the hooks."""
        self.done = self.iter + 1
        super().after_step()

    def after_train(self) -> None:
        """Run the hooks, all of them even where one fails."""
        self.storage.iter = self.iter
        with contextlib.ExitStack() as stack:
            for hook in reversed(self._hooks):
                stack.callback(hook.after_train)

    def state_dict(self) -> dict[str, Any]:
        """Iteration, schedule and optimizer, which Detectron2 0.6 leaves out, and what they belong
        to.
        """
        return {
            **TrainerBase.state_dict(self),
            "iteration": self.done - 1,
            "_trainer": self._trainer.state_dict(),
            "batch": self.batch,
            **optimizer_card(self.unwrapped, self.optimizer),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load :meth:`state_dict`; without an optimizer (Detectron2 0.6) its state starts anew.

        Raises:
            CheckpointError: the optimizer is another one, or has other parameter groups.
        """
        check_card(state_dict, optimizer_card(self.unwrapped, self.optimizer))
        TrainerBase.load_state_dict(self, state_dict)
        self.done = self.iter + 1
        if "_trainer" in state_dict:
            self._trainer.load_state_dict(state_dict["_trainer"])
        else:
            _log.warning("The checkpoint has no optimizer state: the optimizer starts anew.")
        batch = state_dict.get("batch")
        if not isinstance(batch, int | None):
            raise TypeError(f"its batch is a {type(batch).__name__}")
        self.resumed_batch = batch

    def describe(self) -> str:
        """One line about the model, the optimizer, the batch, the devices and the length."""
        return describe(self)

    @classmethod
    def build_model(cls, cfg: DictConfig) -> nn.Module:
        """The model to train: a detector, or a distiller around one, without the teacher where its
        weight is 0.
        """
        if needs_no_teacher(cfg.model):
            _log.info("model.weight is 0, so the teacher is neither built nor asked")
            return build(cfg.model, teacher=None)
        return build(cfg.model)

    @classmethod
    def build_detector(cls, cfg: DictConfig) -> nn.Module:
        """The detector without a distiller; the teacher of a distillation is not built."""
        return build(cfg.model.student if "student" in cfg.model else cfg.model)

    @classmethod
    def build_optimizer(cls, cfg: DictConfig, model: nn.Module) -> optim.Optimizer:
        """The optimizer, over the parameter groups of ``model``."""
        return build(cfg.optimizer, params__model=model)

    @classmethod
    def build_lr_scheduler(cls, cfg: DictConfig, optimizer: optim.Optimizer) -> LRMultiplier:
        """The schedule as Detectron2's LRMultiplier, whose state all its releases save.

        Raises:
            ConfigError: ``lr_multiplier`` does not build a schedule.
        """
        schedule = build(cfg.lr_multiplier)
        if not isinstance(schedule, ParamScheduler):
            raise ConfigError(
                "lr_multiplier must build a ParamScheduler of fvcore, e.g. with step_schedule, and"
                f" not a {type(schedule).__name__}."
            )
        return LRMultiplier(optimizer, schedule, cfg.train.max_iter)

    @classmethod
    def build_train_loader(cls, cfg: DictConfig) -> Any:
        """The endless stream of training batches."""
        return build(cfg.dataloader.train)

    @classmethod
    def build_test_loader(cls, cfg: DictConfig) -> Any:
        """The test images, each once."""
        return build(cfg.dataloader.test)

    @classmethod
    def build_evaluator(cls, cfg: DictConfig) -> DatasetEvaluator:
        """The evaluator of the detections."""
        return build(cfg.dataloader.evaluator)

    @classmethod
    def test(
        cls,
        cfg: DictConfig,
        model: nn.Module,
        evaluators: DatasetEvaluator | list[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """Evaluate a detector, or the detector inside ``model``, on ``cfg.dataloader.test``.

        All processes use the buffers of the first process, because its checkpoints contain those.

        Args:
            cfg: a config, whose test sets are judged one by one.
            model: the detector, or a module around it.
            evaluators: instead of those of the config; of several test sets one for each.

        Returns:
            Nested results, e.g. ``{"bbox": {"AP": 41.2, ...}}``, on the main process; ``{}`` on the
            others. Of several test sets ``{name: results}``.
        """
        detector = deployable(model)
        broadcast_buffers(detector)
        parts = by_evaluation_set(cfg)
        given: Any = evaluators if len(parts) > 1 else [evaluators]
        results = {}
        for (name, part), evaluator in zip(parts.items(), given or repeat(None)):
            if name:
                _log.info("evaluation on %s", name)
            if evaluator is None:
                evaluator = cls.build_evaluator(part)
            loader = cls.build_test_loader(part)
            if count := cfg.train.eval_batches:
                loader = FirstBatches(loader, count)
            found = inference_on_dataset(detector, loader, evaluator) or {}
            if comm.is_main_process():
                print_csv_format({f"{name}/{k}" if name else k: v for k, v in found.items()})
                results[name] = found
        return results.get("", results)

    def evaluate(self) -> dict[str, Any]:
        """Evaluate the model now, and the average of its weights: the results, nested, with the gap
        to the teacher, on the main process.
        """
        averaged = {}
        if self.average is not None:
            _log.info("Evaluation of the averaged weights (train.ema); the trained ones come next.")
            averaged = self.test(self.cfg, self.average.module)
        results = with_gap(self, self.test(self.cfg, self.model))
        if averaged:
            results = {**results, AVERAGED.strip("/"): averaged}
        self.last_results = results
        return self.last_results

    @property
    def unwrapped(self) -> nn.Module:
        """The model without DistributedDataParallel."""
        return self.model.module if hasattr(self.model, "module") else self.model

    @property
    def batch(self) -> int | None:
        """Images of an iteration over all processes, where the loader says it."""
        return getattr(self.data_loader, "total_batch_size", None)

    def _has_own_results(self) -> bool:
        """Whether a subclass evaluates otherwise than the config says."""
        classes = type(self).__mro__
        own = {name for cls in classes[: classes.index(Trainer)] for name in vars(cls)}
        return not own.isdisjoint(("test", "build_evaluator"))
