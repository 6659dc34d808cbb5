"""Detectron2's own program for LazyConfigs, tools/lazyconfig_train_net.py, runs the configs.

It takes the same steps as these tests; the sections of a config are what it reads.
"""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import AMPTrainer, SimpleTrainer, default_setup, default_writers, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import inference_on_dataset, print_csv_format
from engine_toy import write_dataset

from kddetr.checkpoint import Checkpointer, deployable
from kddetr.engine import Trainer
from tests.tiny_config import tiny_config

ROOT = Path(__file__).parents[2]
# What "auto" means for this project's Trainer has to be said.
OVERRIDES = ["train.device=cpu", "train.amp.enabled=False"]


def do_test(cfg, model):
    """Evaluate as the program does."""
    results = inference_on_dataset(
        model, instantiate(cfg.dataloader.test), instantiate(cfg.dataloader.evaluator)
    )
    print_csv_format(results)
    return results


def do_train(args, cfg):
    """Train as the program does; returns the model."""
    model = instantiate(cfg.model)
    model.to(cfg.train.device)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    train_loader = instantiate(cfg.dataloader.train)
    model = create_ddp_model(model, **cfg.train.ddp)
    kind = AMPTrainer if cfg.train.amp.enabled else SimpleTrainer
    trainer = kind(model, train_loader, optimizer)
    checkpointer = DetectionCheckpointer(
        model, cfg.train.output_dir, optimizer=optimizer, trainer=trainer
    )
    writers = default_writers(cfg.train.output_dir, cfg.train.max_iter)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            hooks.LRScheduler(scheduler=instantiate(cfg.lr_multiplier)),
            hooks.PeriodicCheckpointer(checkpointer, **cfg.train.checkpointer),
            hooks.EvalHook(cfg.train.eval_period, lambda: do_test(cfg, model)),
            hooks.PeriodicWriter(writers, period=cfg.train.log_period),
        ]
    )
    checkpointer.resume_or_load(cfg.train.init_checkpoint, resume=args.resume)
    trainer.train(0, cfg.train.max_iter)
    return model


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "path",
    [
        "configs/detectors/dab_detr_r50.py",
        "configs/distill/dino_r18_from_dino_r50.py",
        "configs/distill/faster_rcnn_r50_from_dino_r50.py",
    ],
)
def test_the_program_trains_and_evaluates(path, tmp_path, capsys):
    dataset = write_dataset(tmp_path / "data", f"detectron2_{Path(path).stem}")
    args = Namespace(config_file=str(ROOT / path), opts=OVERRIDES, resume=False, eval_only=False)
    cfg = LazyConfig.load(args.config_file)
    cfg = LazyConfig.apply_overrides(cfg, args.opts)
    cfg = tiny_config(cfg, tmp_path, dataset)
    default_setup(cfg, args)
    model = do_train(args, cfg)
    assert "copypaste: AP," in capsys.readouterr().out
    # What it saves is the whole distiller, of which this project takes the student.
    detector = Trainer.build_detector(LazyConfig.load(str(tmp_path / "run/config.yaml")))
    Checkpointer(detector).load(str(tmp_path / "run/model_final.pth"), strict=True)
    trained = deployable(model).state_dict()
    assert all(torch.equal(v, trained[k]) for k, v in detector.state_dict().items())
