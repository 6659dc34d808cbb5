"""The detectors that can be trained by name, and the recipe of each: a whole config.

A name is that of a file in ``configs/detectors``, a short name of a detector in Detectron2's model
zoo, a name in that zoo, or the path of a config file.
"""

import ast
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.config import LazyCall as L
from omegaconf import DictConfig, OmegaConf

from ..detectors import model_zoo_detector, zoo_config
from ..engine import load_config, require_sections
from ..engine.config.calls import located, walk
from ..engine.config.scaling import scale_to_batch
from ..errors import UsageError, did_you_mean
from ..zoo import zoo_names

_CONFIGS = Path(__file__).resolve().parents[4] / "configs" / "detectors"
_DETECTION = "COCO-Detection"
ZOO = {  # short names of detectors that have no config file here
    "faster_rcnn_r101": f"{_DETECTION}/faster_rcnn_R_101_FPN_3x.yaml",
    "fcos_r50": f"{_DETECTION}/fcos_R_50_FPN_1x.py",
    "retinanet_r50": f"{_DETECTION}/retinanet_R_50_FPN_1x.yaml",
    "retinanet_r101": f"{_DETECTION}/retinanet_R_101_FPN_3x.yaml",
}
_OWN = "custom"  # begins the names of configs for data of one's own, which are no detectors


def students() -> dict[str, str]:
    """What each name stands for, in a sentence."""
    found = {}
    for file in sorted(_CONFIGS.glob("*.py")):
        if not file.stem.startswith(_OWN):
            text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            found[file.stem] = " ".join(text.split("\n\n")[0].split())
    return found | {name: f"Detectron2's {config}." for name, config in ZOO.items()}


def is_published(name: str) -> bool:
    """Whether the schedule of a recipe is one for COCO, and not a config file of the user's."""
    return Path(name).suffix not in (".py", ".yaml", ".yml") or name in zoo_names()


def find_recipe(name: str, what: str = "student") -> str:
    """The config file of a detector, or its name in Detectron2's model zoo.

    Args:
        name, what: see :func:`recipe`.

    Raises:
        UsageError: the name is unknown; the message gives names that are close.
    """
    zoo = ZOO.get(name, name)
    if zoo in zoo_names():
        return zoo
    file = _CONFIGS / f"{name}.py"
    if file.is_file():
        return str(file)
    if Path(name).suffix in (".py", ".yaml", ".yml"):
        return name
    hint = did_you_mean(name, students(), otherwise="", count=3)
    raise UsageError(
        f"There is no {what} called {name!r}; {hint}{' ' * bool(hint)}--{what} list shows all, and"
        " a config file or a name in Detectron2's model zoo is taken, too."
    )


def recipe(name: str, *, batch: int = 0, what: str = "student") -> DictConfig:
    """The whole config of a detector alone.

    Args:
        name: see the module; of the config of a distillation, its student is taken.
        batch: images of an iteration, to which lengths and rates are scaled; 0: as in the recipe.
        what: what the detector is for, in messages.

    Raises:
        UsageError: the name is unknown; the message gives names that are close.
        ConfigError: the config file cannot be loaded.
    """
    file = find_recipe(name, what)
    if file in zoo_names():
        return _zoo_recipe(file, batch)
    cfg = load_config(file, [f"dataloader.train.total_batch_size={batch}"] if batch else [])
    require_sections(cfg, "model", "optimizer", "lr_multiplier", "dataloader.train.mapper")
    require_sections(cfg, "dataloader.test.mapper")
    if "student" in cfg.model:
        cfg.model = _alone(cfg.model.student)
    return cfg


def _alone(node: DictConfig) -> DictConfig:
    """A node with the values of its interpolations, which may refer to what surrounds it."""
    tree = OmegaConf.to_container(node, resolve=True)
    return OmegaConf.create(tree, flags={"allow_objects": True})


def _zoo_recipe(name: str, batch: int) -> DictConfig:
    """A detector of the model zoo with Detectron2's optimizer, schedule and images."""
    cfg = load_config(str(_CONFIGS / "faster_rcnn_r50.py"))
    cfg.model = L(model_zoo_detector)(name=name, boxes_only=True)
    cfg.train.init_checkpoint = f"model_zoo://{name}"
    zoo = zoo_config(name, boxes_only=True)
    changes: dict[str, Any] = {}
    if isinstance(zoo, CfgNode):
        length = zoo.SOLVER.MAX_ITER
        changes = {"optimizer.lr": zoo.SOLVER.BASE_LR, "train.max_iter": length}
        changes["lr_multiplier.milestones"] = [step / length for step in zoo.SOLVER.STEPS]
    elif (rate := OmegaConf.select(zoo, "optimizer.lr")) is not None:
        changes = {"optimizer.lr": rate}
    for key, value in changes.items():
        OmegaConf.update(cfg, key, value)
    if batch:
        cfg.dataloader.train.total_batch_size = batch
        scale_to_batch(cfg)
    return cfg


def set_num_classes(node: DictConfig, count: int) -> None:
    """Set the number of classes of a detector's node, in place, wherever it has one; where it
    refers to another one it stays.
    """
    if located(node["_target_"]) is model_zoo_detector:
        node.num_classes = count
        return
    tree = OmegaConf.to_container(node, resolve=False)
    for path, value in walk(tree):
        if path.split(".")[-1] == "num_classes" and isinstance(value, int):
            OmegaConf.update(node, path, count)
