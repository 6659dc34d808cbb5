"""Runs as a training leaves them, without a training."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from kddetr.engine import load_config
from kddetr.report import Run

STUDENT = "configs/quickstart/alone.py"
PAIR = "configs/quickstart/distilled.py"


@cache
def _loaded(config: str) -> DictConfig:
    return load_config(config, ["train.max_iter=20"])


def make_run(folder: Path, ap: float, config: str = PAIR, **changes: Any) -> Run:
    """A run of 20 iterations with two evaluations, of which the last has this AP.

    Args:
        folder: need not exist.
        ap: bbox/AP of the last evaluation.
        config: the config file.
        changes: keys of the section ``train``; of other sections with "__" for the dots.
    """
    cfg = copy.deepcopy(_loaded(config))
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", ".") if "__" in key else f"train.{key}", value)
    lines: list[dict[str, Any]] = []
    for i in (4, 9, 14, 19):
        loss = {"losses/detection": 9.0 - i / 10, "losses/kd_general": 2.0, "total_loss": 9.0}
        lines.append({"iteration": i, **loss, "train_seconds": i / 2})
    lines[1] |= {"bbox/AP": ap / 2, "bbox/AP-3": ap / 2, "bbox/AP-7": 0.0}
    last = {"bbox/AP": ap, "bbox/AP50": ap + 9, "bbox/APl": float("nan")}
    lines.append({"iteration": 20, **last, "bbox/AP-3": ap + 1, "bbox/AP-7": ap - 1})
    return Run(folder, cfg, lines)


def write_run(run: Run) -> Path:
    """Write a run into its folder."""
    run.folder.mkdir(parents=True)
    LazyConfig.save(run.cfg, str(run.folder / "config.yaml"))
    (run.folder / "metrics.json").write_text("".join(json.dumps(x) + "\n" for x in run.lines))
    (run.folder / "model_final.pth").write_bytes(b"weights")
    return run.folder
