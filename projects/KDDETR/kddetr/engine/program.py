"""The program that trains or evaluates: its flags, its checks at the door, and its processes.

``train_net.py`` runs it with a config file; ``tools/distill.py`` and ``tools/train.py`` write one
first.
"""

import argparse
import contextlib
import logging
import os
from collections.abc import Callable, Sequence

import torch
from detectron2.engine import HookBase, default_argument_parser
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.logger import setup_logger
from omegaconf import DictConfig

from ..checkpoint import Checkpointer
from ..errors import ConfigError, UserError, exit_on_user_error
from . import stopping
from .agreement import all_or_none, require_same, require_same_config, require_same_weights
from .auto_weight import settle_weight
from .checks import (
    check_config,
    check_launch,
    check_output_dir,
    check_writable,
    resolve_device,
)
from .classes import check_classes, check_evaluated, check_model
from .config import load_config, require_sections
from .dev_run import fast_dev_run, shortened
from .launch import another_has_ended, launch, under_torchrun
from .run_folder import only_run_in
from .trainer import Trainer

Before = Callable[[DictConfig, argparse.Namespace], None]


def without_user_errors(record: logging.LogRecord) -> bool:
    """A filter that drops the traceback of a UserError, which is reported in a sentence, and that
    of the communication with a process that has ended with one.

    That of an OSError stays in the log, because its sentence does not say what was being done.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, RuntimeError) and not isinstance(error, UserError):
        return not another_has_ended(error)
    return not isinstance(error, UserError)


def run(
    args: argparse.Namespace,
    hooks: Sequence[Callable[[], HookBase]] = (),
    before: Sequence[Before] = (),
) -> dict:
    """Train or evaluate in one process of the job.

    Args:
        args: the parsed command line.
        hooks: make further hooks of a training, which act after all others.
        before: called with the config and the command line before a training that starts anew,
            such as a preflight; they may raise a UserError instead of it.

    Returns:
        The results of the last evaluation.
    """
    logging.raiseExceptions = False  # a full disk costs lines of log.txt, and not a traceback each
    logging.getLogger("detectron2.engine.train_loop").addFilter(without_user_errors)
    flags = {"--eval-only": args.eval_only, "--resume": args.resume}
    flags["--fast-dev-run"] = args.fast_dev_run
    require_same(flags, "start all machines with the same flags.")
    cfg = load_config(args.config_file, args.opts)

    def work(cfg: DictConfig) -> dict:
        return evaluate(cfg, args) if args.eval_only else train(cfg, args, hooks, before)

    return fast_dev_run(cfg, work) if args.fast_dev_run else work(cfg)


def set_up_loggers(cfg: DictConfig) -> None:
    """Log to the console and to log.txt in the output folder."""
    file = os.path.join(cfg.train.output_dir, "log.txt")  # a folder may be called NAME.txt
    for name in ("kddetr", "fvcore", "detectron2"):
        setup_logger(file, distributed_rank=comm.get_rank(), name=name)


def train(
    cfg: DictConfig,
    args: argparse.Namespace,
    hooks: Sequence[Callable[[], HookBase]] = (),
    before: Sequence[Before] = (),
) -> dict:
    """Train, from the beginning or from the last checkpoint."""
    stopping.limit_time(cfg.train.time_limit)
    with contextlib.ExitStack() as stack:
        with all_or_none():
            if comm.is_main_process():
                stack.enter_context(only_run_in(cfg.train.output_dir))
        # Not Detectron2's default_setup, which would replace the config.yaml of a run before it is
        # known that this one can continue it.
        set_up_loggers(cfg)
        log = logging.getLogger("kddetr")
        log.info("Environment info:\n%s", collect_env_info())
        log.info("Command line arguments: %s", args)
        with stopping.at_once():  # nothing is trained yet
            for look in () if args.resume else before:
                look(cfg, args)
            settle_weight(cfg, resume=args.resume)
        trainer = Trainer(cfg)
        trainer.register_hooks([make() for make in hooks])
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()


def evaluate(cfg: DictConfig, args: argparse.Namespace) -> dict:
    """Evaluate train.init_checkpoint, or with --resume the last checkpoint."""
    set_up_loggers(cfg)
    require_same_config(cfg)
    with all_or_none():
        model = Trainer.build_detector(cfg).to(resolve_device(cfg.train.device)).eval()
        checkpointer = Checkpointer(model, cfg.train.output_dir)
        last = checkpointer.last_checkpoint() if args.resume else ""
        file = last or cfg.train.init_checkpoint
        if last and _names_weights(args.opts):
            words = "--resume evaluates %s; without it, train.init_checkpoint would be evaluated."
            logging.getLogger("kddetr").warning(words, last)
        check_evaluated(cfg, checkpointer.load(file, strict=True), file)
        check_model(cfg, model, training=False)
    require_same_weights(model)
    return Trainer.test(cfg, model)


def check(args: argparse.Namespace) -> torch.device:
    """Check the config and the command line before processes are started; returns the device."""
    cfg = load_config(args.config_file, args.opts)
    _check_launcher(args)
    if args.fast_dev_run:
        if args.resume:
            raise ConfigError(
                "--fast-dev-run tries a run in a folder of its own, which has nothing to resume"
                " from: leave out one of the two flags."
            )
        cfg = shortened(cfg)
    torchrun = under_torchrun()
    device = check_launch(
        cfg,
        int(os.environ["LOCAL_WORLD_SIZE"]) if torchrun else args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        torchrun=torchrun,
    )
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
    if not (args.eval_only or args.resume or args.fast_dev_run):
        check_output_dir(cfg.train.output_dir)
    return device


def _check_launcher(args: argparse.Namespace) -> None:
    """Check what launchers of processes hand over by flags and environment variables."""
    if args.local_rank is not None and not under_torchrun():
        raise ConfigError(
            "--local-rank is a flag of torch.distributed.launch, and this program was not started"
            " by it: use --num-gpus, or torchrun --nproc_per_node N train_net.py."
        )
    alone = args.num_gpus * args.num_machines == 1 and not under_torchrun()
    world = os.environ.get("WORLD_SIZE", "1")
    if alone and world != "1":
        logging.getLogger("kddetr").warning(
            "The environment says WORLD_SIZE=%s, but this process trains alone: start it with"
            " torchrun, or with --num-gpus, --num-machines, --machine-rank and --dist-url.",
            world,
        )


def _weights_to_evaluate(cfg: DictConfig, overrides: list[str]) -> bool:
    """Whether train.init_checkpoint is a detector, and not backbone weights that training starts
    from: it was given on the command line, or is not an address.
    """
    file = cfg.train.init_checkpoint
    return bool(file) and (_names_weights(overrides) or "://" not in file)


def _names_weights(overrides: list[str]) -> bool:
    return any(text.startswith("train.init_checkpoint=") for text in overrides)


def main(
    argv: list[str] | None = None,
    *,
    epilog: str = "",
    hooks: Sequence[Callable[[], HookBase]] = (),
    before: Sequence[Before] = (),
) -> None:
    """Parse and check the command line, and run the job in the processes that it asks for.

    Args:
        argv: the command line; None: that of this process.
        epilog: the end of the help text.
        hooks, before: see :func:`run`.
    """
    start(parser(epilog).parse_args(argv), hooks, before)


def start(
    args: argparse.Namespace,
    hooks: Sequence[Callable[[], HookBase]] = (),
    before: Sequence[Before] = (),
) -> None:
    """Check parsed arguments, and run the job in the processes that they ask for.

    Args:
        args: the parsed command line.
        hooks, before: see :func:`run`.

    Raises:
        SystemExit: the user can put something right (exit code 2), or the run was stopped.
    """
    is_first = os.environ.get("LOCAL_RANK", "0") == "0"  # of those that torchrun has started here
    with stopping.listening(speaks=is_first), stopping.exit_when_stopped():
        with exit_on_user_error(quiet=not is_first):
            device = check(args)
        with exit_on_user_error():
            launch(
                run,
                processes=args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                dist_timeout=args.dist_timeout,
                device=device,
                args=(args, hooks, before),
            )


def parser(epilog: str = "") -> argparse.ArgumentParser:
    """Detectron2's flags, and those of this program."""
    flags = default_argument_parser(epilog=epilog)
    flags.set_defaults(dist_url="auto")  # Detectron2's fixed port makes a second job fail
    flags.add_argument(
        "--dist-timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long the processes of a job wait for one another at its start",
    )
    flags.add_argument(
        "--preflight",
        action="store_true",
        help="measure first whether the distillation will pay, and stop where it makes no sense",
    )
    flags.add_argument("--force", action="store_true", help="train whatever --preflight finds")
    flags.add_argument(
        "--fast-dev-run",
        action="store_true",
        help="try the whole run in a minute: two steps of everything, in a folder that is removed",
    )
    # What torch.distributed.launch adds; the number is in the environment too.
    flags.add_argument("--local-rank", "--local_rank", type=int, help=argparse.SUPPRESS)
    return flags
