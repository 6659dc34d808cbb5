"""A quick try of a whole run, ``--fast-dev-run``: two steps of everything, evaluation and saving
included.

What is wrong with a config, its data or its files then shows in a minute, and not after hours. The
try has a folder of its own beside that of the run, which it removes where all went well.
"""

import logging
import os
import shutil
from collections.abc import Callable
from typing import TypeVar

from detectron2.utils import comm
from omegaconf import DictConfig, OmegaConf

from .agreement import all_or_none
from .run_folder import only_run_in

ENDING = "_fast_dev_run"  # of the folder
STEPS = 2
_log = logging.getLogger(__name__)
Result = TypeVar("Result")


def fast_dev_run(cfg: DictConfig, train: Callable[[DictConfig], Result]) -> Result:
    """Train with :func:`shortened`, in a folder that is removed afterwards; after an error it
    stays, with its ``log.txt``.

    Args:
        cfg: of the whole run.
        train: trains with a config; it is called in every process.

    Raises:
        ConfigError: another try of the same run is going on.
    """
    cfg = shortened(cfg)
    folder = cfg.train.output_dir
    with all_or_none():
        if comm.is_main_process() and os.path.isdir(folder):  # of a try that failed, or goes on
            with only_run_in(folder):
                shutil.rmtree(folder, ignore_errors=True)
    result = train(cfg)
    comm.synchronize()
    if comm.is_main_process():
        shutil.rmtree(folder, ignore_errors=True)
        words = "All parts of the run were tried (--fast-dev-run), and %s is removed again."
        _log.info(words, folder)
    return result


def shortened(cfg: DictConfig) -> DictConfig:
    """A config that does everything of a run: two iterations, each evaluated on two batches of test
    images of every process, watched, logged and saved, in the folder ``..._fast_dev_run``.

    Args:
        cfg: as :func:`~kddetr.engine.load_config` returns it; it stays as it is.
    """
    cfg = OmegaConf.create(cfg, flags={"allow_objects": True})
    train = cfg.train
    train.output_dir = f"{os.path.normpath(train.output_dir)}{ENDING}"
    train.max_iter, train.eval_batches = STEPS, STEPS
    train.eval_period = train.checkpointer.period = train.log_period = 1
    train.watch_period = min(train.watch_period, 1)
    train.watch_images = min(train.watch_images, STEPS)
    train.report_images = min(train.report_images, STEPS)
    train.loggers = []
    if OmegaConf.select(cfg, "lr_multiplier.warmup_iters"):
        cfg.lr_multiplier.warmup_iters = 1
    evaluator = OmegaConf.select(cfg, "dataloader.evaluator")
    if OmegaConf.is_dict(evaluator) and evaluator.get("output_dir"):
        evaluator.output_dir = os.path.join(train.output_dir, "evaluation")
    return cfg
