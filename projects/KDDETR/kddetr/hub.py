"""Models of the Hugging Face Hub by name: ``hf://PekingU/rtdetr_v2_r18vd``.

Importing this module teaches Detectron2's path manager such addresses. Nothing is fetched before
one is asked for, and a model that is in Hugging Face's cache needs no network.
"""

import json
import re
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler

from .errors import CheckpointError

PREFIX = "hf://"
CONFIG, PREPARATION = "config.json", "preprocessor_config.json"  # what a model's folder is told by
WEIGHTS = re.compile(r"(model|pytorch_model)\b.*\.(safetensors|bin)(\.index\.json)?")
_WEIGHTS = (("*.safetensors", "*.safetensors.index.json"), ("*.bin", "*.bin.index.json"))


def hub_folder(address: str, *, weights: bool = True) -> str:
    """The local folder with the files of a model of the Hub, which is fetched where it is not yet
    in the cache.

    Args:
        address: ``hf://OWNER/NAME``, or ``hf://OWNER/NAME@REVISION``.
        weights: fetch the weights too, and not only the descriptions of the model.

    Raises:
        CheckpointError: the address is none, the model cannot be fetched or has no such files, or
            the package huggingface_hub is missing.
    """
    name, _, revision = address.removeprefix(PREFIX).rstrip("/").partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise CheckpointError(
            f"{address} names no model of the Hugging Face Hub: write {PREFIX}OWNER/NAME, for"
            f" instance {PREFIX}PekingU/rtdetr_v2_r18vd."
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise CheckpointError(
            f"{address} is fetched by the package huggingface_hub, which is not installed: pip"
            " install -e .[hf], or name a local folder."
        ) from error

    def fetched(*patterns: str) -> str:
        try:
            return snapshot_download(
                name, revision=revision or None, allow_patterns=[CONFIG, PREPARATION, *patterns]
            )
        except Exception as error:  # of the network, the Hub's answers, or the local disk
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
            raise CheckpointError(
                f"{address} cannot be fetched from the Hugging Face Hub"
                f" ({type(error).__name__}: {reason:.200}): check the name and the connection, or"
                " name a local folder with its files."
            ) from error

    if not weights:
        return fetched()
    for patterns in _WEIGHTS:
        folder = fetched(*patterns)
        if any(any(Path(folder).glob(pattern)) for pattern in patterns):
            return folder
    raise CheckpointError(
        f"{address} has no weights of PyTorch (*.safetensors or *.bin): name another model."
    )


def description(folder: str | Path, name: str = CONFIG) -> dict[str, Any]:
    """The content of a JSON file in a model's folder; empty where there is none.

    Raises:
        CheckpointError: the file cannot be read.
    """
    file = Path(folder) / name
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read ({error}): copy the folder again.") from error
    return content if isinstance(content, dict) else {}


def class_names(folder: str | Path) -> tuple[str, ...]:
    """The names of a model's classes in the ``config.json`` of its folder, in order; empty where
    there are none, or the package's placeholders.

    Raises:
        CheckpointError: the file cannot be read.
    """
    names = description(folder).get("id2label")
    if not isinstance(names, dict) or sorted(names) != sorted(map(str, range(len(names)))):
        return ()
    in_order = tuple(str(names[str(i)]) for i in range(len(names)))
    placeholders = all(name == f"LABEL_{i}" for i, name in enumerate(in_order))
    return () if placeholders else in_order


class _HubHandler(PathHandler):
    """Lets Detectron2's path manager fetch such models; it cannot write them."""

    def _get_supported_prefixes(self) -> list[str]:
        return [PREFIX]

    def _get_local_path(self, path: str, **kwargs) -> str:
        return hub_folder(path)


PathManager.register_handler(_HubHandler(), allow_override=True)
