"""Preflight: what is measured before the first hour of a distillation, and whether it will pay."""

from .report import PreflightReport
from .run import run_preflight

__all__ = ["PreflightReport", "run_preflight"]
