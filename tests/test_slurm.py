"""examples/slurm.sh, with programs that stand for those of a cluster and for the training."""

import os
import subprocess
from pathlib import Path

import pytest

from kddetr.engine.program import parser

ROOT = Path(__file__).resolve().parents[1]
# srun runs its command on this machine, and python writes down its arguments.
STAND_INS = {
    "srun": 'exec "$@"',
    "scontrol": 'if [ "$1" = show ]; then echo first; echo second; else echo "$@" > done; fi',
    "python": 'printf "%s\\n" "$@" > arguments; exit "$CODE"',
}


def submitted(folder: Path, code: int) -> subprocess.CompletedProcess:
    """The job after its training, on the second of two machines, has ended with a code."""
    for name, text in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    cluster = {"SLURM_JOB_ID": "41", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_NNODES": "2"}
    machine = {"SLURM_NODEID": "1", "SLURM_GPUS_ON_NODE": "8", "CODE": str(code)}
    path = f"{folder}:{os.environ['PATH']}"
    command = ["bash", str(ROOT / "examples" / "slurm.sh"), "a config.py", "train.seed=1"]
    return subprocess.run(command, cwd=folder, env={**cluster, **machine, "PATH": path})


def test_every_machine_gets_its_number_and_the_address_of_the_first(tmp_path: Path):
    assert submitted(tmp_path, 0).returncode == 0
    program, *words = (tmp_path / "arguments").read_text().splitlines()
    assert program == "train_net.py"
    args = parser().parse_args(words)
    assert args.config_file == "a config.py" and args.opts == ["train.seed=1"] and args.resume
    assert (args.num_gpus, args.num_machines, args.machine_rank) == (8, 2, 1)
    assert args.dist_url == "tcp://first:20041"
    assert not (tmp_path / "done").exists()


@pytest.mark.parametrize(("code", "again"), [(138, True), (143, False), (2, False)])
def test_a_run_that_the_time_limit_stopped_is_queued_again(tmp_path: Path, code: int, again: bool):
    """Not one that was cancelled, or had an error."""
    assert submitted(tmp_path, code).returncode == code
    assert (tmp_path / "done").exists() == again
    assert not again or (tmp_path / "done").read_text() == "requeue 41\n"
