"""Train or evaluate: `python train_net.py --config-file CONFIG.py [--flags] [key=value ...]`.

Flags are Detectron2's; everything else is in the config, see configs/common/train.py. A mistake
of the user's ends in one sentence and exit code 2.
"""

import argparse
import copy
import logging
import sys
import warnings

# Noise of libraries under today's torch; filters go before the imports that warn.
warnings.filterwarnings("ignore", message=r".*torch\.jit\.script.* is deprecated")
warnings.filterwarnings("ignore", message=r"torch\.meshgrid")
warnings.filterwarnings("ignore", message=r".*pkg_resources is deprecated")
warnings.filterwarnings("ignore", message=r"TypedStorage is deprecated")
for noisy in ("torch.utils.cpp_extension", "torch.fx._symbolic_trace"):
    logging.getLogger(noisy).setLevel(logging.ERROR)

from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch.multiprocessing import ProcessExitedException

import kddetr  # noqa: F401  (registers data sets and meta-architectures)
from kddetr.checkpoint import Checkpointer, CheckpointError
from kddetr.data import DatasetError
from kddetr.engine import (
    ConfigError,
    Trainer,
    check_config,
    check_launch,
    check_model,
    check_output_dir,
    launch,
    load_config,
    require_sections,
    resolve_device,
    under_torchrun,
)
from kddetr.errors import UsageError

USER_ERRORS = (ConfigError, CheckpointError, DatasetError, UsageError, FloatingPointError)


def sentence(error: Exception) -> str:
    """What the user is told; a loader's worker puts its traceback in front of it."""
    text = str(error)
    return text.strip().splitlines()[-1] if "Original Traceback" in text else text


class WithoutUserErrors(logging.Filter):
    """Keeps Detectron2's loop from logging the traceback of what is said in a sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], USER_ERRORS))


def run(args: argparse.Namespace) -> dict:
    """What each process does.

    Returns:
        The results of the (last) evaluation.

    Exits with code 2 after one sentence when the user can put something right.
    """
    logging.getLogger("detectron2.engine.train_loop").addFilter(WithoutUserErrors())
    try:
        cfg = load_config(args.config_file, args.opts)
        # default_setup sees to the other two in training; a second time would double lines.
        for name in ("kddetr", "fvcore", "detectron2") if args.eval_only else ("kddetr",):
            setup_logger(cfg.train.output_dir, distributed_rank=comm.get_rank(), name=name)
        return evaluate(cfg, args) if args.eval_only else train(cfg, args)
    except USER_ERRORS as error:
        print(f"\nerror: {sentence(error)}", file=sys.stderr, flush=True)
        sys.exit(2)


def train(cfg, args: argparse.Namespace) -> dict:
    """Train, from the beginning or from the last checkpoint."""
    shown = copy.copy(args)
    shown.config_file = ""  # the whole config is dumped as config.yaml; its file need not be logged
    default_setup(cfg, shown)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def evaluate(cfg, args: argparse.Namespace) -> dict:
    """Evaluate train.init_checkpoint, or with --resume the last checkpoint."""
    model = Trainer.build_detector(cfg).to(resolve_device(cfg.train.device)).eval()
    check_model(cfg, model)
    checkpointer = Checkpointer(model, cfg.train.output_dir)
    last = checkpointer.last_checkpoint() if args.resume else ""
    checkpointer.load(last or cfg.train.init_checkpoint, strict=True)
    return Trainer.test(cfg, model)


def check(args: argparse.Namespace):
    """Look at everything that can be known to be wrong before processes start; give the device."""
    cfg = load_config(args.config_file, args.opts)
    device = check_launch(cfg, args.num_gpus, torchrun=under_torchrun())
    require_sections(cfg, "model", "dataloader.test", "dataloader.evaluator")
    found = args.resume and Checkpointer(None, cfg.train.output_dir).has_checkpoint()
    if args.eval_only and not found and not _weights_to_evaluate(cfg, args.opts):
        raise ConfigError(
            "--eval-only needs weights: train.init_checkpoint=FILE, or --resume for the last "
            f"checkpoint in train.output_dir ({cfg.train.output_dir})."
        )
    check_config(cfg, training=not args.eval_only, resuming=found)
    if not args.eval_only and not args.resume:
        check_output_dir(cfg.train.output_dir)
    return device


def _weights_to_evaluate(cfg, overrides: list[str]) -> bool:
    """Whether train.init_checkpoint is more than the address that a training starts from."""
    named = any(text.startswith("train.init_checkpoint=") for text in overrides)
    return bool(cfg.train.init_checkpoint) and (named or "://" not in cfg.train.init_checkpoint)


def main(argv: list[str] | None = None) -> None:
    """Parse the command line, check it, and run the job in as many processes as it asks for."""
    parser = default_argument_parser(epilog=__doc__)
    parser.set_defaults(dist_url="auto")  # Detectron2's fixed port makes a second job fail
    args = parser.parse_args(argv)
    try:
        launch(
            run,
            processes=args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            device=check(args),
            args=(args,),
        )
    except USER_ERRORS as error:
        print(f"\nerror: {sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except ProcessExitedException as error:
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
