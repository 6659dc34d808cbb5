"""Train or evaluate: ``python train_net.py --config-file CONFIG.py [--flags] [key=value ...]``.

The flags are those of Detectron2; everything else is in the config file, whose section ``train`` is
described in kddetr/engine/defaults.py. An error that the user can put right is reported in one
sentence with exit code 2.
"""

import argparse
import copy
import logging
import sys

import kddetr  # noqa: F401  (first: it filters the warnings of libraries)

# isort: split
import torch
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig
from torch.multiprocessing import ProcessExitedException

from kddetr.checkpoint import Checkpointer
from kddetr.engine import (
    Trainer,
    check_classes,
    check_config,
    check_evaluated,
    check_launch,
    check_model,
    check_output_dir,
    check_writable,
    launch,
    load_config,
    record_classes,
    require_sections,
    resolve_device,
    under_torchrun,
)
from kddetr.errors import ConfigError, UserError, exit_on_user_error


def without_user_errors(record: logging.LogRecord) -> bool:
    """A filter that drops the traceback of a UserError, which is reported in a sentence.

    That of an OSError stays in the log, because its sentence does not say what was being done.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], UserError))


def run(args: argparse.Namespace) -> dict:
    """Train or evaluate in one process of the job.

    Errors end in a sentence here too, and not only in :func:`main`: this may be another process.

    Returns:
        The results of the last evaluation.
    """
    logging.getLogger("detectron2.engine.train_loop").addFilter(without_user_errors)
    with exit_on_user_error():
        cfg = load_config(args.config_file, args.opts)
        # In training default_setup sets up the other two loggers; twice, each line would be double.
        for name in ("kddetr", "fvcore", "detectron2") if args.eval_only else ("kddetr",):
            setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name=name)
        return evaluate(cfg, args) if args.eval_only else train(cfg, args)


def train(cfg: DictConfig, args: argparse.Namespace) -> dict:
    """Train, from the beginning or from the last checkpoint."""
    record_classes(cfg)  # the saved config has them
    shown = copy.copy(args)
    shown.config_file = ""  # default_setup saves the whole config; the file need not be logged too
    default_setup(cfg, shown)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def evaluate(cfg: DictConfig, args: argparse.Namespace) -> dict:
    """Evaluate train.init_checkpoint, or with --resume the last checkpoint."""
    model = Trainer.build_detector(cfg).to(resolve_device(cfg.train.device)).eval()
    checkpointer = Checkpointer(model, cfg.train.output_dir)
    last = checkpointer.last_checkpoint() if args.resume else ""
    file = last or cfg.train.init_checkpoint
    check_evaluated(cfg, checkpointer.load(file, strict=True), file)
    check_model(cfg, model, training=False)
    return Trainer.test(cfg, model)


def check(args: argparse.Namespace) -> torch.device:
    """Check the config and the command line before processes are started; returns the device."""
    cfg = load_config(args.config_file, args.opts)
    device = check_launch(cfg, args.num_gpus, torchrun=under_torchrun())
    require_sections(cfg, "model", "dataloader")
    last = Checkpointer(None, cfg.train.output_dir).last_checkpoint() if args.resume else ""
    if args.eval_only and not last and not _weights_to_evaluate(cfg, args.opts):
        raise ConfigError(
            "--eval-only needs weights: give train.init_checkpoint=FILE, or --resume for the last"
            f" checkpoint in train.output_dir ({cfg.train.output_dir})."
        )
    check_config(cfg, training=not args.eval_only, check_init_checkpoint=not last)
    evaluated = cfg.train.init_checkpoint if args.eval_only else ""
    check_classes(cfg, last or evaluated, training=not args.eval_only)
    check_writable(cfg.train.output_dir)
    if not args.eval_only and not args.resume:
        check_output_dir(cfg.train.output_dir)
    return device


def _weights_to_evaluate(cfg: DictConfig, overrides: list[str]) -> bool:
    """Whether train.init_checkpoint is a detector, and not backbone weights that training starts
    from: it was given on the command line, or is not an address.
    """
    named = any(text.startswith("train.init_checkpoint=") for text in overrides)
    return bool(cfg.train.init_checkpoint) and (named or "://" not in cfg.train.init_checkpoint)


def main(argv: list[str] | None = None) -> None:
    """Parse and check the command line, and run the job in the processes that it asks for."""
    parser = default_argument_parser(epilog=__doc__)
    parser.set_defaults(dist_url="auto")  # Detectron2's fixed port makes a second job fail
    args = parser.parse_args(argv)
    try:
        with exit_on_user_error():
            launch(
                run,
                processes=args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                device=check(args),
                args=(args,),
            )
    except ProcessExitedException as error:  # the process has reported its error itself
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
