"""Training: loading and checking configs, starting processes, the Trainer with its hooks, and
evaluation.
"""

from ..errors import ConfigError
from .auto_weight import settle_weight
from .best import BestCheckpoint
from .checks import (
    check_config,
    check_launch,
    check_output_dir,
    check_writable,
    resolve_device,
)
from .classes import check_classes, check_evaluated, check_model, record_classes
from .config import apply_overrides, build, load_config, require_sections, train_defaults
from .dev_run import fast_dev_run
from .evaluation import CocoEvaluator, coco_backend
from .hooks import EvalHook, PeriodicCheckpointer, StopHook
from .launch import launch, under_torchrun
from .optimizer import parameter_groups
from .schedule import cosine_schedule, step_schedule
from .seeding import seed_everything
from .trainer import Trainer

__all__ = [
    "BestCheckpoint",
    "CocoEvaluator",
    "ConfigError",
    "EvalHook",
    "PeriodicCheckpointer",
    "StopHook",
    "Trainer",
    "apply_overrides",
    "build",
    "check_classes",
    "check_config",
    "check_evaluated",
    "check_launch",
    "check_model",
    "check_output_dir",
    "check_writable",
    "coco_backend",
    "cosine_schedule",
    "fast_dev_run",
    "launch",
    "load_config",
    "parameter_groups",
    "record_classes",
    "require_sections",
    "resolve_device",
    "seed_everything",
    "settle_weight",
    "step_schedule",
    "train_defaults",
    "under_torchrun",
]
