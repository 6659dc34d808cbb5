"""Starting the processes of a job: a single one, one for each GPU, several on the CPU, or those of
torchrun.

Detectron2 0.6 starts processes for GPUs only, and none of its releases supports torchrun.
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

_TIMEOUT = timedelta(minutes=30)


def under_torchrun() -> bool:
    """Whether torchrun, or a program with the same environment variables, started this process."""
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
    """Run ``main(*args)`` in every process of the job.

    Args:
        main: a function that other processes can import.
        processes: number of processes on this machine: one for each GPU, or any number on the CPU.
        num_machines: number of machines of the job, each of which calls this function.
        machine_rank: number of this machine, from 0.
        dist_url: address for the first contact of the processes; "auto" takes a free port, on a
            single machine.
        device: of type cuda (the processes communicate by NCCL) or cpu (by gloo).
        args: arguments of ``main``.

    Raises:
        ConfigError: several machines without an address, or other numbers than torchrun has.
    """
    if under_torchrun():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        if processes not in (1, local) or num_machines != 1:
            raise ConfigError(
                f"torchrun has started {local} processes on this machine: set the numbers by its"
                " --nproc-per-node and --nnodes, and leave out --num-gpus and --num-machines."
            )
        _join(main, args, int(os.environ["LOCAL_RANK"]), local, device.type, init_method="env://")
        return
    if processes * num_machines == 1:
        main(*args)
        return
    if dist_url == "auto":
        if num_machines > 1:
            raise ConfigError(
                "Several machines need a common address: add --dist-url tcp://FIRST_MACHINE:PORT."
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
    if "OMP_NUM_THREADS" not in os.environ:  # otherwise every process would use all cores
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
    """Run ``main`` inside of the job's process groups."""
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
    """Make the process group of this machine, from which Detectron2 takes local ranks."""
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
