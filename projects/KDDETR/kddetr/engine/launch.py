"""Starting the processes of a job: a single one, one for each GPU, several on the CPU, or those of
torchrun.

Detectron2 starts processes for GPUs only, and does not support torchrun.
"""

import contextlib
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from ..errors import ConfigError, UsageError, UserError, exit_on_user_error
from . import stopping
from .rendezvous import Member, check_url, meet

_TIMEOUT = timedelta(minutes=30)
# Seconds in which the other processes may end by themselves after one has ended: the first one may
# still be saving.
_GRACE = 30.0
_HEARD = 3.0  # seconds to wait for the sentence of a process that has ended
# What the libraries of the communication say when a process at the other end is gone.
_LOST = re.compile(r"gloo/transport|ncclRemoteError|Connection (closed|reset)|Broken pipe")
_reports: dist.Store | None = None  # which processes have reported an error


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
    dist_timeout: float = 300.0,
    device: torch.device,
    args: tuple = (),
) -> None:
    """Run ``main(*args)`` in every process of the job.

    An error that the user can put right is reported once on each machine, see
    :func:`~kddetr.errors.exit_on_user_error`, and ends all processes.

    Args:
        main: a function that other processes can import.
        processes: number of processes on this machine: one for each GPU, or any number on the CPU.
        num_machines: number of machines of the job, each of which calls this function.
        machine_rank: number of this machine, from 0.
        dist_url: address for the first contact of the processes; "auto" takes a free port, on a
            single machine.
        dist_timeout: seconds to wait for the first contact.
        device: of type cuda (the processes communicate by NCCL) or cpu (by gloo).
        args: arguments of ``main``.

    Raises:
        ConfigError: several machines without an address, or other numbers than torchrun has.
        SystemExit: one of several processes ended with an exit code other than 0, which it has.
    """
    if under_torchrun():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        if processes not in (1, local) or num_machines != 1:
            if os.environ["LOCAL_RANK"] != "0":  # the first process of the machine says it
                raise SystemExit(2)
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
    check_url(dist_url, serves=machine_rank == 0)
    world = (device.type, processes, num_machines, machine_rank, dist_url, dist_timeout)
    # The log of PyTorch's C++ has stack traces of connections that are lost.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    context = mp.spawn(_process, args=(main, args, *world), nprocs=processes, join=False)
    with _passing_on_signals(context.pids()):
        try:
            while not context.join(grace_period=_GRACE):
                pass
        except ProcessExitedException as error:
            raise SystemExit(_exit_code(error)) from error


def _exit_code(error: ProcessExitedException) -> int:
    """That of a process that has ended and reported its error, or has been killed, which is
    reported here.
    """
    if error.exit_code >= 0:
        return error.exit_code
    print(
        f"error: Process {error.error_index} was ended by {error.signal_name} (the system sends"
        " SIGKILL when memory is used up, and SIGBUS when shared memory is): --resume goes on from"
        " the last checkpoint.",
        file=sys.stderr,
        flush=True,
    )
    return 128 - error.exit_code


@contextlib.contextmanager
def _passing_on_signals(pids: list[int]) -> Iterator[None]:
    """Inside, this process hands its signals to the processes that it has started."""

    def pass_on(number: int, _: Any) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    caught = [n for n in stopping.SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _process(
    local_rank: int,
    main: Callable,
    args: tuple,
    device: str,
    processes: int,
    machines: int,
    machine: int,
    url: str,
    timeout: float,
) -> None:
    if device == "cpu" and "OMP_NUM_THREADS" not in os.environ:  # each would use all cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    me = Member(machine, machines, local_rank, processes)
    with stopping.listening(speaks=local_rank == 0), stopping.exit_when_stopped():
        with exit_on_user_error(quiet=local_rank > 0):
            store = meet(url, me, timeout=timeout)
        world = {"store": store, "rank": me.rank, "world_size": me.world_size}
        with exit_on_user_error():
            _join(main, args, local_rank, processes, device, **world)


def _join(
    main: Callable, args: tuple, local_rank: int, local_size: int, device: str, **rendezvous: Any
) -> None:
    """Run ``main`` inside of the job's process groups."""
    global _reports
    if device == "cuda":
        torch.cuda.set_device(local_rank)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=_TIMEOUT, **rendezvous)
    _reports = dist.PrefixStore("reports", dist.distributed_c10d._get_default_store())
    try:
        # The process group of this machine, from which Detectron2 takes local ranks.
        comm._LOCAL_PROCESS_GROUP, _ = dist.new_subgroups(local_size)
        comm.synchronize()
        main(*args)
    except (UserError, OSError, ModuleNotFoundError) as error:
        if not _is_first_report(dist.get_rank() // local_size):
            raise SystemExit(2) from error
        raise
    except RuntimeError as error:
        if not another_has_ended(error):
            raise
        if not _is_first_report(dist.get_rank() // local_size):
            raise SystemExit(2) from error
        raise UsageError(
            "Another process of this job has ended or does not answer, so this one ends too: its"
            " own message, or the log of its machine, says why (the system ends a process without"
            " one when memory is used up); then start all of them again, with --resume."
        ) from error
    finally:
        _reports = None
        comm._LOCAL_PROCESS_GROUP = None
        dist.destroy_process_group()


def _is_first_report(machine: int) -> bool:
    """Whether no other process of the machine has reported an error of the user."""
    assert _reports is not None
    try:
        _reports.add("any", 1)
        return _reports.add(str(machine), 1) == 1
    except RuntimeError:  # the first process of the job, which keeps the store, has ended
        return comm.get_local_rank() == 0


def another_has_ended(error: RuntimeError) -> bool:
    """Whether an error is that of the communication with a process that has ended."""
    return bool(_LOST.search(str(error))) or another_has_reported()


def another_has_reported() -> bool:
    """Whether another process has ended with a sentence for the user.

    The communication with it then fails here, which is no error of this process.
    """
    if _reports is None:
        return False
    until = time.monotonic() + _HEARD
    try:
        while time.monotonic() < until:
            if _reports.check(["any"]):
                return True
            time.sleep(0.1)
    except RuntimeError:
        return True
    return False
