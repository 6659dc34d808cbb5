"""Detectron2's model zoo, for a config that is in it."""

from functools import cache
from pathlib import Path
from types import ModuleType

import detectron2

from .errors import UsageError, did_you_mean


def zoo_with(name: str) -> ModuleType:
    """The module ``detectron2.model_zoo``, once it is certain that it has a config of that name.

    Other names are refused because reading a LazyConfig runs it as Python code.

    Args:
        name: e.g. ``COCO-Detection/faster_rcnn_R_50_FPN_1x.yaml`` or ``common/models/fcos.py``.

    Raises:
        UsageError: there is no such config (the message gives names that are close), or this
            installation has no model zoo.
    """
    try:
        from detectron2 import model_zoo  # needs setuptools' pkg_resources in most releases
    except ImportError as error:
        raise UsageError(
            f"Detectron2's model zoo cannot be imported ({error}): pip install 'setuptools<81'."
        ) from error
    known = zoo_names()
    if name in known:
        return model_zoo
    other = "this installation came without its configs."
    if known:
        other = f"its {len(known)} names are like {known[len(known) // 2]}."
    hint = did_you_mean(name, known, otherwise=other, count=3)
    raise UsageError(f"Detectron2's model zoo has no config {name!r}; {hint}")


@cache
def zoo_names() -> tuple[str, ...]:
    """The names of all configs in the model zoo, sorted; empty where the installation has none."""
    folder = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    return tuple(
        sorted(
            file.relative_to(folder).as_posix()
            for file in folder.rglob("*.*")
            if file.suffix in (".py", ".yaml")
        )
    )
