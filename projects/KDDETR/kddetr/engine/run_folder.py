"""The output folder of a run: one run at a time, and the config that it was trained with."""

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from ..checkpoint import atomic_write
from ..errors import ConfigError, UserError
from .config.load import load_config
from .config.own_targets import PLAIN

_log = logging.getLogger(__name__)
_PROBE = 2**20  # bytes


@contextlib.contextmanager
def only_run_in(folder: str, patience: float = 6.0) -> Iterator[None]:
    """Holds the folder for this process; the system lets go of it when the process ends, however.

    Args:
        folder: is made where it does not exist.
        patience: seconds to wait for another process. The loading processes of a killed run end a
            few seconds after it, and hold its folder until then.

    Raises:
        ConfigError: another run is training in the folder.
        StorageError: nothing can be written into it.
    """
    os.makedirs(folder, exist_ok=True)
    lock = FileLock(os.path.join(folder, "run.lock"))
    try:
        lock.acquire(timeout=patience)
    except Timeout as error:
        raise ConfigError(
            f"Another run is training in {folder}: wait until it has ended, or set"
            " train.output_dir=FOLDER for this one."
        ) from error
    except NotImplementedError:
        _log.warning("The file system of %s has no locks: train one run in it at a time.", folder)
    try:
        for left in Path(folder).glob("*.tmp-*"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)
        probe = os.path.join(folder, "run.probe")
        atomic_write(probe, lambda stream: stream.write(bytes(_PROBE)))
        os.unlink(probe)
        yield
    finally:
        lock.release()


def config_of_run(folder: str) -> DictConfig | None:
    """The config that the run in ``folder`` has saved; None, with a warning, if it cannot be read.

    It is only compared with, so that it never keeps a run from resuming.
    """
    file = os.path.join(folder, "config.yaml")
    if not os.path.isfile(file):
        _log.warning("%s is missing: what has changed since then is not known.", file)
        return None
    try:
        return load_config(file)
    except (UserError, OSError, ValueError, ImportError) as error:
        _log.warning("%s; what has changed since then is not known.", str(error).rstrip("."))
        return None


def save_config(cfg: DictConfig, folder: str, *, trained: int = 0) -> None:
    """Write ``config.yaml``.

    Args:
        cfg: the config that is used from now on.
        folder: of the run.
        trained: iterations that were trained with another config, which is kept under this number;
            0: none.
    """
    path = Path(folder, "config.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside it first, because it may be the very file that the config was loaded from.
    new = Path(folder, f"config.yaml.tmp-{os.getpid()}")
    try:
        LazyConfig.save(_without_objects(cfg), str(new))
        if trained and path.is_file():
            shutil.copyfile(path, Path(folder, f"config_until_{trained:07d}.yaml"))
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)
    _log.info("The whole config is saved to %s", path)


class NotSaved:
    """What stands in ``config.yaml`` for an object, which it cannot hold: a file with one is read
    by people, and refused as a config.
    """

    def __init__(self, value: object) -> None:
        self.value = repr(value)


def _without_objects(cfg: DictConfig) -> DictConfig:
    """A copy of a config for saving, in which YAML can write every value."""
    tree = OmegaConf.to_container(cfg, resolve=False)

    def savable(node: Any, *, is_target: bool = False) -> Any:
        if isinstance(node, dict):
            return {k: savable(v, is_target=k == "_target_") for k, v in node.items()}
        if isinstance(node, list):
            return [savable(item) for item in node]
        return node if is_target or isinstance(node, PLAIN) else NotSaved(node)

    return OmegaConf.create(savable(tree), flags={"allow_objects": True})


def set_aside_best(folder: str) -> None:
    """Rename ``model_best.pth`` and ``model_ema.pth`` of a run whose other checkpoints are gone,
    because the run that starts anew would replace them.
    """
    for kind, words in (("best", "best weights"), ("ema", "averaged weights")):
        file, aside = Path(folder, f"model_{kind}.pth"), Path(folder, f"earlier_{kind}.pth")
        if file.is_file():
            os.replace(file, aside)
            if (card := file.with_suffix(".json")).is_file():
                os.replace(card, aside.with_suffix(".json"))
            _log.warning("The %s of an earlier run are kept as %s", words, aside)
