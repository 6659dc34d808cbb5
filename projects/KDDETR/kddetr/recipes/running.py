"""A plan written into its output folder, and run by the program behind ``train_net.py``."""

import argparse
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoint import atomic_write, whole_checkpoints
from ..engine import check_writable, program, under_torchrun
from ..errors import ConfigError
from ..report import ReportHook
from .planning import Plan, plan
from .request import Request


def write_plan(request: Request, command: str) -> tuple[Plan, str]:
    """Plan a training, and write its config into the output folder.

    Returns:
        The plan, and the path of the file.

    Raises:
        ConfigError: the folder has another run, or another config.
        UserError: see :func:`~.planning.plan`.
    """
    _refuse_run(request.folder)
    file = Path(request.config_file)
    present = file.read_text(encoding="utf-8") if file.is_file() else ""
    kept = ConfigError(
        f"{file} was edited, or a run has begun with it: train it with python train_net.py"
        f" --config-file {file}, or choose another folder with --output DIR."
    )
    stays = bool(present) and not _may_replace(file, present)
    # Before the labels that were converted for it are replaced by those of other data.
    if stays and f"    {command}\n" not in present:
        raise kept
    made = plan(request, command)
    text = made.text + _checksum(made.text)
    if stays and present != text:
        raise kept
    check_writable(request.folder)
    atomic_write(str(file), lambda stream: stream.write(text.encode()))
    return made, str(file)


def _checksum(text: str) -> str:
    """The last line of a config file, by which it is seen whether the file was edited."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"\n# Checksum of the lines above, which may be replaced while it is right: {digest}\n"


def _may_replace(file: Path, text: str) -> bool:
    """Whether a config file is as this program wrote it, and no run has begun with it."""
    lines = text.rstrip("\n").rpartition("\n# Checksum")[0]
    return lines + _checksum(lines) == text and not file.with_name("config.yaml").exists()


def _refuse_run(folder: str) -> None:
    present = whole_checkpoints(folder) if os.path.isdir(folder) else []
    if present:
        raise ConfigError(
            f"{folder} already contains a run ({present[-1]}): continue it by adding --resume, or"
            " choose another folder with --output DIR."
        )


def config_to_resume(request: Request) -> str:
    """The config file in the output folder of a run that is resumed.

    Raises:
        ConfigError: there is none.
    """
    file = request.config_file
    if not os.path.isfile(file):
        raise ConfigError(
            f"There is no run to resume: {file} does not exist. Leave out --resume, or name the"
            " folder of the run with --output DIR."
        )
    return file


def arguments(
    file: str, overrides: Sequence[str] = (), flags: Sequence[str] = ()
) -> argparse.Namespace:
    """The arguments of ``train_net.py`` that run a config file.

    Args:
        file: the config.
        overrides: ``key=value``.
        flags: such as ``--resume``, ``--num-gpus``, ``2``.
    """
    return program.parser().parse_args(["--config-file", file, *flags, *overrides])


def train_here(file: str, overrides: Sequence[str] = (), *, resume: bool = False) -> dict[str, Any]:
    """Train a config in this process, on one device; returns the results of the last evaluation.

    Args:
        file: the config.
        overrides: ``key=value``, such as ``train.seed=1 train.output_dir=FOLDER`` for another seed.
        resume: continue the run in its output folder.

    Raises:
        UserError: something that the user can put right.
    """
    args = arguments(file, overrides, ["--resume"] if resume else [])
    program.check(args)
    return program.run(args, [ReportHook])


def refuse_torchrun() -> None:
    """Refuse to plan in the processes of torchrun, each of which would write the config."""
    if under_torchrun():
        raise ConfigError(
            "torchrun starts processes for one config: write it with --dry-run first, and start"
            " torchrun --nproc-per-node N train_net.py --config-file OUTPUT/config.py."
        )
