"""Training runs for tests: whole runs, and runs that are interrupted and resumed."""

import pytest

from kddetr.checkpoint import read_checkpoint
from kddetr.engine import Trainer


def trained(cfg, *, resume: bool = False) -> Trainer:
    """The trainer of a finished run."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=resume)
    trainer.train()
    return trainer


def interrupt(cfg, *, at: int) -> None:
    """Train until iteration ``at``, which is interrupted before its step."""
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    step = trainer.run_step

    def interrupted_step():
        if trainer.iter == at:
            raise KeyboardInterrupt
        step()

    trainer.run_step = interrupted_step
    with pytest.raises(KeyboardInterrupt):
        trainer.train()


def final_checkpoint(cfg) -> dict:
    """The whole last checkpoint of a finished run."""
    return read_checkpoint(f"{cfg.train.output_dir}/model_final.pth")
