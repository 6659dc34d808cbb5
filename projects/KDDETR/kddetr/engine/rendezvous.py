"""The first contact of the processes of a job: who has come, and who is missing.

Every process writes into the job's store who it is. PyTorch's own first contact waits in silence
until a time-out, and trains together whatever has come with the right numbers.
"""

import json
import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from torch.distributed import DistError, TCPStore

from ..errors import ConfigError

_log = logging.getLogger(__name__)
_PATIENCE = 3.0  # seconds until the first message about waiting
_EVERY = 30.0  # seconds between two messages
_POLL = 0.2
_FAREWELL = 2.0  # seconds for which an error waits, so that the other processes read of it too


@dataclass(frozen=True)
class Member:
    """One process of a job, as it was started.

    Attributes:
        machine, machines: ``--machine-rank`` and ``--num-machines``.
        process, processes: number of the process on its machine, and ``--num-gpus``.
    """

    machine: int
    machines: int
    process: int
    processes: int

    @property
    def rank(self) -> int:
        """Its number in the job."""
        return self.machine * self.processes + self.process

    @property
    def world_size(self) -> int:
        """The number of processes of the job."""
        return self.machines * self.processes


def check_url(url: str, *, serves: bool) -> tuple[str, int]:
    """The host and port of ``--dist-url``.

    Args:
        url: ``tcp://HOST:PORT``.
        serves: whether a process of this machine will listen at the port.

    Raises:
        ConfigError: it is not such an address, the host is unknown, or the port is in use.
    """
    advice = "write it as --dist-url tcp://FIRST_MACHINE:PORT, the same on all machines."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"--dist-url {url} is no address ({error}): {advice}") from error
    if parts.scheme != "tcp" or not host or not port:
        raise ConfigError(f"--dist-url {url} is not of the form tcp://HOST:PORT: {advice}")
    try:
        socket.getaddrinfo(host, port)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--dist-url {url}: the host {host} is not known: {advice}") from error
    if serves:
        try:
            socket.create_server(("", port)).close()
        except OSError as error:
            raise ConfigError(
                f"--dist-url {url}: this machine cannot listen at port {port} ({error.strerror});"
                " another job may use it: choose another port, on all machines."
            ) from error
    return host, port


def meet(url: str, me: Member, *, timeout: float) -> Any:
    """Wait until all processes of the job have come.

    Args:
        url: a checked address.
        me: this process.
        timeout: seconds to wait at most.

    Returns:
        The job's store, for ``init_process_group``.

    Raises:
        ConfigError: a process is missing after the time-out, two have the same number, or the
            machines were started with different numbers.
    """
    host, port = check_url(url, serves=False)
    speaks = me.process == 0
    waiting = _Waiting(url, me, timeout, speaks)
    store = _connect(host, port, me, waiting)
    try:
        number = store.add("arrived", 1)
        store.set(f"arrived/{number}", json.dumps(asdict(me)))
        come: list[Member] = []
        while len(come) < me.world_size:
            for index in range(len(come) + 1, store.add("arrived", 0) + 1):
                other = Member(**json.loads(store.get(f"arrived/{index}")))
                _check_together(other, me, come)
                come.append(other)
            waiting.tick(come)
        # The last one out of the first process, which keeps the store: all have read the list.
        store.add("complete", 1)
        while me.rank == 0 and store.add("complete", 0) < me.world_size:
            waiting.tick(come)
    except DistError as error:
        raise ConfigError(
            f"The process that listens at {url} has ended; its own message says why."
        ) from error
    except ConfigError:
        if me.rank == 0:
            time.sleep(_FAREWELL)
        raise
    return store


class _Waiting:
    """The time that a process has waited, and what it says about it."""

    def __init__(self, url: str, me: Member, timeout: float, speaks: bool):
        self._url, self._me, self._timeout, self._speaks = url, me, timeout, speaks
        self._start = time.monotonic()
        self._next = _PATIENCE

    def tick(self, come: list[Member] | None) -> None:
        """Sleep for a moment; now and then say who is missing.

        Args:
            come: who has come; None: the first machine has not, which would know.

        Raises:
            ConfigError: the time is over.
        """
        waited = time.monotonic() - self._start
        missing = "machine 0, which does not listen yet,"
        if come is not None:
            count = self._me.world_size - len(come)
            missing = f"{count} processes ({', '.join(_missing(self._me, come))})"
        if waited > self._timeout:
            raise ConfigError(
                f"After {waited:.0f} seconds of waiting for {missing} at {self._url}:"
                " start all machines with the same --dist-url, --num-machines and --num-gpus, and"
                " see that the port can be reached; --dist-timeout SECONDS waits longer."
            )
        if waited > self._next:
            self._next = waited + _EVERY
            if self._speaks:
                words = "waiting for %s at %s, for %.0f seconds at most"
                _log.warning(words, missing, self._url, self._timeout)
        time.sleep(_POLL)


def _missing(me: Member, come: list[Member]) -> Iterator[str]:
    """The machines, or on a single machine the processes, that have not come."""
    there = {(member.machine, member.process) for member in come}
    for machine in range(me.machines):
        absent = [p for p in range(me.processes) if (machine, p) not in there]
        if len(absent) == me.processes:
            yield f"machine {machine}"
        elif absent:
            yield f"process {', '.join(map(str, absent))} of machine {machine}"


def _connect(host: str, port: int, me: Member, waiting: _Waiting) -> TCPStore:
    """The store of the job, which its first process keeps."""
    if me.rank == 0:
        return TCPStore(host, port, is_master=True, wait_for_workers=False)
    while True:
        try:  # Python's own sockets can be interrupted; the store's connection waits in C++
            socket.create_connection((host, port), timeout=5).close()
        except OSError:
            waiting.tick(None)
            continue
        return TCPStore(host, port, is_master=False, timeout=timedelta(seconds=30))


def _check_together(other: Member, me: Member, come: list[Member]) -> None:
    numbers = (other.machines, other.processes)
    if numbers != (me.machines, me.processes):
        raise ConfigError(
            f"machine {other.machine} was started with --num-machines {other.machines} --num-gpus"
            f" {other.processes}, and machine {me.machine} with --num-machines {me.machines}"
            f" --num-gpus {me.processes}: give all machines the same numbers."
        )
    if any((m.machine, m.process) == (other.machine, other.process) for m in come):
        raise ConfigError(
            f"Two machines were started with --machine-rank {other.machine}: number them from 0 to"
            f" {me.machines - 1}, each once."
        )
