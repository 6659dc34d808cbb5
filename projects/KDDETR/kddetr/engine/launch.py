"""Starting the processes of a job: one, several GPUs, several CPU processes, or under torchrun.

Detectron2 0.6 starts GPU processes only, and no release sets up what torchrun's processes need.
"""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.engine import launch as launch_gpus
from detectron2.utils import comm

from ..errors import ConfigError

__all__ = ["launch", "under_torchrun"]

_TIMEOUT = timedelta(minutes=30)


def under_torchrun() -> bool:
    """Whether torchrun (or something with its environment variables) has started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"} <= set(os.environ)


def launch(
    main: Callable[..., Any],
    *,
    processes: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str = "auto",
    device: torch.device,
    args: tuple = (),
) -> None:
    """Run `main(*args)` in every process of the job.

    Args:
        main: a function that other processes can import.
        processes: how many on this machine; one for each GPU, or that many on the CPU.
        num_machines: machines of the job, each of which runs this.
        machine_rank: which of them this is.
        dist_url: where the processes meet; "auto" finds a free port on a single machine.
        device: of type cuda or cpu, which decides the way to communicate (NCCL or gloo).
        args: passed to `main`.

    Raises:
        ConfigError: several machines without an address to meet, or torchrun and another count.
    """
    if under_torchrun():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        if processes not in (1, local) or num_machines != 1:
            raise ConfigError(
                f"torchrun has started {local} processes on this machine; leave --num-gpus and "
                "--num-machines to torchrun (--nproc-per-node, --nnodes)."
            )
        _join(main, args, int(os.environ["LOCAL_RANK"]), local, device.type, init_method="env://")
        return
    if processes * num_machines == 1:
        main(*args)
        return
    if dist_url == "auto":
        if num_machines > 1:
            raise ConfigError(
                "Several machines need an address to meet: --dist-url tcp://FIRST_MACHINE:PORT."
            )
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    if device.type == "cuda":
        launch_gpus(main, processes, num_machines, machine_rank, dist_url, args)
        return
    world = (processes, num_machines, machine_rank, dist_url)
    mp.start_processes(
        _cpu_process, args=(main, args, *world), nprocs=processes, start_method="spawn"
    )


def _cpu_process(
    local_rank: int,
    main: Callable,
    args: tuple,
    processes: int,
    machines: int,
    machine: int,
    url: str,
) -> None:
    if "OMP_NUM_THREADS" not in os.environ:  # else every process would take all cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    rendezvous = {
        "init_method": url,
        "rank": machine * processes + local_rank,
        "world_size": machines * processes,
    }
    _join(main, args, local_rank, processes, "cpu", **rendezvous)


def _join(
    main: Callable, args: tuple, local_rank: int, local_size: int, device: str, **rendezvous: Any
) -> None:
    """Join the job's process groups, run, and leave them."""
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT, **rendezvous)
    try:
        _make_local_group(local_size)
        comm.synchronize()
        main(*args)
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        dist.destroy_process_group()


def _make_local_group(local_size: int) -> None:
    """The group of this machine's processes, which Detectron2 asks for local ranks."""
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(local_size)
        return
    for start in range(0, dist.get_world_size(), local_size):
        group = dist.new_group(list(range(start, start + local_size)))
        if start <= dist.get_rank() < start + local_size:
            comm._LOCAL_PROCESS_GROUP = group


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
