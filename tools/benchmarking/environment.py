"""Where a figure was measured: versions, commit, processor and threads."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import detectron2
import torch

ROOT = Path(__file__).resolve().parents[2]


def environment(device: torch.device) -> dict[str, Any]:
    """Facts about the machine and the software, for a report."""
    on_gpu = device.type == "cuda"
    return {
        "commit": commit(),
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "python": platform.python_version(),
        "processor": torch.cuda.get_device_name(device) if on_gpu else processor(),
        "device": device.type,
        "threads": torch.get_num_threads(),
    }


def commit() -> str:
    """The commit of this project, with "+" where files differ from it; "" without git."""
    try:
        found = _git("rev-parse", "--short=10", "HEAD")
        # Not docs/, into which results are written while a series of measurements runs.
        changed = _git("status", "--porcelain", "--", "projects", "configs", "tools")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return found + "+" if changed else found


def processor() -> str:
    """The name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not on Linux
        pass
    return platform.processor() or platform.machine()


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
