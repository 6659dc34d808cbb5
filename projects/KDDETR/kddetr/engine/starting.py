"""How a run starts, from weights or from its last checkpoint, and how it is saved when stopped."""

import contextlib
import logging
import os
from typing import TYPE_CHECKING, Any

from detectron2.utils import comm
from torch import nn

from ..errors import StorageError
from .agreement import all_or_none, require_same, require_same_weights
from .classes import check_start
from .hooks import PeriodicCheckpointer
from .metrics import go_back
from .optimizer_state import apply_options, group_options
from .precision import settle_precision
from .resuming import ResumedRun
from .run_folder import save_config, set_aside_best
from .stopping import Stopped

if TYPE_CHECKING:
    from .trainer import Trainer

_log = logging.getLogger(__name__)


def start(trainer: "Trainer", *, resume: bool) -> None:
    """See :meth:`Trainer.resume_or_load`."""
    cfg, folder = trainer.cfg, trainer.cfg.train.output_dir
    with all_or_none():
        last = trainer.checkpointer.last_checkpoint() if resume else ""
    require_same(
        {"the last checkpoint": os.path.basename(last) if last else "missing"},
        "copy train.output_dir of machine 0 to all machines, or use a folder that they share.",
    )
    if resume and not last:
        words = "--resume found no checkpoint in %s: training starts at iteration 0."
        _log.warning(words, folder)
    with all_or_none():
        run = ResumedRun(last, cfg) if last else None
    settle_precision(trainer)
    with all_or_none():
        if run:
            _resume(trainer, run)
        else:
            file = cfg.train.init_checkpoint
            loaded = trainer.checkpointer.load(file, checkpointables=[])
            check_start(cfg, loaded, file, resumed=False)
    _require_same_start(trainer)
    with all_or_none():
        if comm.is_main_process():
            if run:
                run.record(trainer.start_iter)
            else:
                set_aside_best(folder)
                go_back(folder, 0)
                save_config(cfg, folder)


def _resume(trainer: "Trainer", run: ResumedRun) -> None:
    """Continue after the images that were seen, with the options of today's config."""
    options = group_options(trainer.optimizer)
    loaded = trainer.checkpointer.resume(run.file)
    check_start(trainer.cfg, loaded, run.file, resumed=True)
    run.restored(trainer.done, trainer.resumed_batch, trainer.optimizer)
    apply_options(trainer.optimizer, options)
    at = run.start(trainer.batch, trainer.scheduler, trainer.optimizer)
    trainer.start_iter = trainer.done = at
    trainer.iter = at - 1
    if hasattr(trainer.data_loader, "start_iteration"):
        trainer.data_loader.start_iteration = at
    else:
        _log.warning(
            "The training loader has no start_iteration, so its images start from the first."
        )
    for hook in trainer._hooks:
        if isinstance(hook, PeriodicCheckpointer):
            hook.resumed_at = run.done - 1
    restored = "optimizer, schedule"
    if trainer.best is not None:
        trainer.best.restore(run.batch, start=at)
        restored += f", {trainer.best.describe()}"
    _log.info("resumed from %s at iteration %d with %s", run.file, at, restored)


def _require_same_start(trainer: "Trainer") -> None:
    """Compare iteration, weights, teacher and data of all processes."""
    facts: dict[str, Any] = {"the iteration": trainer.start_iter}
    for stream in getattr(trainer.data_loader, "streams", ()):
        kind = "unlabelled" if stream.number else "labelled"
        facts[f"the number of {kind} training images"] = len(stream.records)
    require_same(facts, "give all machines the same files.")
    require_same_weights(trainer.unwrapped)
    if isinstance(teacher := getattr(trainer.unwrapped, "teacher", None), nn.Module):
        require_same_weights(teacher, "the teacher's weights")


def save_stopped(trainer: "Trainer", stopped: Stopped) -> str:
    """Save what is not saved yet when a run is stopped; returns what to tell the user."""
    saver, done = trainer.checkpointer, trainer.done
    name, note = f"model_{done - 1:07d}", ""
    is_saved = done == trainer.start_iter or (saver.saved and saver.saved[1] == done - 1)
    if not stopped.between_steps:
        note = "without saving; "
    elif not is_saved:
        try:
            saver.save(name, iteration=done - 1)
        except StorageError as error:
            note = f"but {error} "
    if stopped.agreed:  # the others wait until the first process has saved
        with contextlib.suppress(RuntimeError):
            comm.synchronize()
    last = saver.get_checkpoint_file()
    go_on = f"--resume goes on from {last}" if last else "there is no checkpoint yet"
    return f"after {done} of {trainer.max_iter} iterations; {note}{go_on}."
