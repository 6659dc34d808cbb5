"""Recipes: from a teacher's file and a folder of images to a config that trains.

``tools/distill.py`` and ``tools/train.py`` are thin programs around this package.
"""

from .api import Trained, distill, train
from .decisions import Decision, print_decisions
from .planning import Plan, plan
from .recognize import Recognized, recognize
from .request import Request
from .running import arguments, config_to_resume, refuse_torchrun, train_here, write_plan
from .students import students
from .written import write_config

__all__ = [
    "Decision",
    "Plan",
    "Recognized",
    "Request",
    "Trained",
    "arguments",
    "config_to_resume",
    "distill",
    "plan",
    "print_decisions",
    "recognize",
    "refuse_torchrun",
    "students",
    "train",
    "train_here",
    "write_config",
    "write_plan",
]
