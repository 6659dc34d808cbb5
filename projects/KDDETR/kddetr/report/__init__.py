"""The report of a run, and the comparison of runs: HTML pages that are files of their own."""

from .comparison import Comparison, claim, compare_runs, comparison_text
from .hook import ReportHook
from .run import Run, read_run
from .seeds import train_pairs
from .write import write_comparison, write_report

__all__ = [
    "Comparison",
    "ReportHook",
    "Run",
    "claim",
    "compare_runs",
    "comparison_text",
    "read_run",
    "train_pairs",
    "write_comparison",
    "write_report",
]
