"""Which checkpoint of a folder a run resumes from: the one on record, or the newest whole one."""

import logging
import os
import re
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from .files import read_checkpoint

_log = logging.getLogger(__name__)
# The best one holds weights only: a run cannot resume from it.
_RESUMABLE = re.compile(r"model_(\d+|final)\.pth")


def checkpoint_to_resume(folder: str) -> str:
    """The file that ``last_checkpoint`` names, if it is whole, or else the newest whole checkpoint.

    A process that is killed, or a disk that is full, can leave either of them damaged; a warning
    then says what is taken instead.

    Returns:
        The path of the file; empty when the folder holds no checkpoint that a run can resume from.

    Raises:
        CheckpointError: there are such checkpoints, but none of them is whole.
    """
    note = Path(folder, "last_checkpoint")
    names = [file.name for file in Path(folder).glob("model_*.pth")]
    names = [name for name in names if _RESUMABLE.fullmatch(name)]
    try:
        recorded = note.read_text().strip() if note.is_file() else ""
    except (OSError, UnicodeDecodeError):
        recorded = "\0"
    if not names and not _is_name(recorded):
        return ""
    reason = f"{note} is missing, empty or damaged"
    if _is_name(recorded):
        file = os.path.join(folder, recorded)
        if not (damage := _damage(file)):
            return file
        reason = f"{note} names {recorded}, which cannot be read ({damage})"
    others = [os.path.join(folder, name) for name in names if name != recorded]
    if whole := {file: seen for file in others if (seen := _progress(file)) is not None}:
        newest = max(whole, key=lambda file: whole[file])
        _log.warning("%s, so the run resumes from %s.", reason, newest)
        return newest
    if not names:
        _log.warning("%s, and the folder holds no other checkpoint.", reason)
        return ""
    raise CheckpointError(
        f"{reason}, and no other checkpoint in {folder} is whole: copy one there, or start anew in"
        " another folder (train.output_dir=FOLDER), with train.init_checkpoint=FILE from weights"
        " that you have."
    )


def _is_name(text: str) -> bool:
    return bool(text) and text.isprintable() and text not in (".", "..")


def _damage(file: str) -> str:
    """What is wrong with a file; empty where it is whole."""
    if not os.path.isfile(file):
        return "there is no such file"
    try:
        read_checkpoint(file)
    except (CheckpointError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _progress(file: str) -> tuple[float, float] | None:
    """How many images a checkpoint has seen, and when it was written; None for a damaged one."""
    try:
        data = read_checkpoint(file)
    except (CheckpointError, OSError):
        return None
    trainer: Any = data.get("trainer")
    batch = trainer.get("batch") if isinstance(trainer, dict) else None
    iteration = data.get("iteration")
    seen = (iteration if isinstance(iteration, int) else -1) * float(batch or 1)
    return seen, os.path.getmtime(file)
