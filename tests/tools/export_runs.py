"""What tools/export.py is tried on, and how it is called."""

from pathlib import Path

from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

import export
from kddetr.checkpoint import Checkpointer
from kddetr.engine import build
from tests.tiny import tiny_detector

NAMES = ["cat", "dog", "bird"]


def leave_run(folder: Path, family: str) -> Path:
    """Make a folder what a run leaves: config.yaml, and weights with class names."""
    model = L(tiny_detector)(family=family, decoder_layers=1)
    cfg = OmegaConf.create({"model": model}, flags={"allow_objects": True})
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    Checkpointer(build(cfg.model), str(folder), classes=NAMES).save_weights("model_final")
    return folder


def exported(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the tool."""
    code = 0
    try:
        export.main([*arguments])
    except SystemExit as stopped:
        code = stopped.code
    out = capsys.readouterr()
    return code, out.out + out.err
