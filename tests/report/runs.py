"""Folders of runs as a training leaves them, without a training."""

import json
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from engine_toy import toy_config
from omegaconf import DictConfig

from kddetr.engine import load_config

STUDENT = "configs/quickstart/alone.py"
PAIR = "configs/quickstart/distilled.py"


def write_run(folder: Path, ap: float, *overrides: str, config: str = PAIR, done: int = 20) -> Path:
    """A run of 20 iterations with two evaluations, of which the last has this AP."""
    cfg = load_config(config, ["train.max_iter=20", f"train.output_dir={folder}", *overrides])
    folder.mkdir(parents=True)
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    lines: list[dict[str, Any]] = []
    for i in (4, 9, 14, 19):
        loss = {"losses/detection": 9.0 - i / 10, "losses/kd_general": 2.0, "total_loss": 9.0}
        lines.append({"iteration": i, **loss, "train_seconds": i / 2})
    lines.append({"iteration": 9, "bbox/AP": ap / 2, "bbox/AP-3": ap / 2, "bbox/AP-7": 0.0})
    if done == 20:
        last = {"bbox/AP": ap, "bbox/AP50": ap + 9, "bbox/APl": float("nan")}
        lines.append({"iteration": 20, **last, "bbox/AP-3": ap + 1, "bbox/AP-7": ap - 1})
        (folder / "model_final.pth").write_bytes(b"weights")
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def small_config(folder: Path, **train: Any) -> DictConfig:
    """The config of a toy detector that is trained in a moment."""
    return toy_config(folder, **train)
