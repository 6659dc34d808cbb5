"""Preflight: what is measured before the first hour of a distillation, and whether it will pay."""

from .report import PreflightReport
from .run import before_training, run_preflight

__all__ = ["PreflightReport", "before_training", "run_preflight"]
