"""A plan trained with several seeds, and for a distillation also without its teacher."""

import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..checkpoint import whole_checkpoints
from ..engine import load_config
from ..preflight.report import FILE as PREFLIGHT
from ..report import comparison_text, train_pairs, write_comparison

_PROGRAM = Path(__file__).resolve().parents[4] / "train_net.py"
ALONE, DISTILLED, TRAINED = "alone", "distilled", "trained"


def train_seeds(
    file: str,
    seeds: Iterable[int],
    *,
    flags: Sequence[str] = (),
    overrides: Sequence[str] = (),
    distils: bool = True,
) -> None:
    """Train a config with several seeds, print how the runs compare, and write the page about it.

    A finished run is not repeated, and an unfinished one goes on. A distillation is trained without
    its teacher, too: on the labelled images alone, whole batches of them.

    Args:
        file: the config.
        seeds: values of ``train.seed``.
        flags: of ``train_net.py``, such as ``--num-gpus 2``.
        overrides: ``key=value`` for all runs.
        distils: whether the config is one of a distillation.

    Raises:
        SystemExit: a training has ended with an error or was stopped; its exit code.
        UserError: the runs cannot be compared.
    """
    folder = Path(file).parent
    changes = {way: [*overrides] for way in ((ALONE, DISTILLED) if distils else (TRAINED,))}
    if distils:
        changes[ALONE].append("model.weight=0")
        if load_config(file).dataloader.train.get("unlabeled_per_batch"):
            changes[ALONE].append("dataloader.train.unlabeled_per_batch=0")

    def folder_of(way: str, seed: int) -> Path:
        return folder / f"{way}_seed{seed}"

    def train(way: str, seed: int) -> None:
        output = folder_of(way, seed)
        if way == DISTILLED and (folder / PREFLIGHT).is_file():
            output.mkdir(exist_ok=True)  # its report shows what was measured
            shutil.copyfile(folder / PREFLIGHT, output / PREFLIGHT)
        train_apart(file, output, seed, changes[way], flags)

    found = train_pairs(list(changes), seeds, folder_of=folder_of, train=train)
    print(comparison_text(found))
    print(f"The page is {write_comparison(found, folder / 'compare.html')}")


def train_apart(
    file: str, output: Path, seed: int, overrides: Sequence[str] = (), flags: Sequence[str] = ()
) -> None:
    """Train a config with one seed in a process of its own, or go on with it.

    Args:
        file: the config.
        output: the output folder.
        seed: ``train.seed``.
        overrides: ``key=value``.
        flags: of ``train_net.py``.

    Raises:
        SystemExit: the training has ended with an error or was stopped; its exit code.
    """
    again = ["--resume"] if output.is_dir() and whole_checkpoints(str(output)) else []
    command = [sys.executable, str(_PROGRAM), "--config-file", file, *flags, *again]
    command += [*overrides, f"train.seed={seed}", f"train.output_dir={output}"]
    if code := subprocess.run(command).returncode:
        raise SystemExit(code if code > 0 else 128 - code)
