"""Starting the processes of a job: a single one, one for each GPU, several on the CPU, or those of
torchrun.

Detectron2 starts processes for GPUs only, and does not support torchrun.
"""

import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
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
        with socket.create_server(("127.0.0.1", 0)) as probe:  # on a free port
            dist_url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    world = (device.type, processes, num_machines, machine_rank, dist_url)
    mp.spawn(_process, args=(main, args, *world), nprocs=processes)


def _process(
    local_rank: int,
    main: Callable,
    args: tuple,
    device: str,
    processes: int,
    machines: int,
    machine: int,
    url: str,
) -> None:
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:  # each would use all cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    world = {"rank": machine * processes + local_rank, "world_size": machines * processes}
    _join(main, args, local_rank, processes, device, init_method=url, **world)


def _join(
    main: Callable, args: tuple, local_rank: int, local_size: int, device: str, **rendezvous: Any
) -> None:
    """Run ``main`` inside of the job's process groups."""
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT, **rendezvous)
    try:
        # The process group of this machine, from which Detectron2 takes local ranks.
        comm._LOCAL_PROCESS_GROUP, _ = dist.new_subgroups(local_size)
        comm.synchronize()
        main(*args)
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        dist.destroy_process_group()
