"""A dask cluster: any that listens at an address, or one of processes on this computer."""

import logging
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stores.errors import EmbedctlError

if TYPE_CHECKING:
    from distributed import Client, Worker

__all__ = ["check_cluster", "connected", "dask_setup", "end_at_once", "is_there"]

_ADDRESS = re.compile(r"(?:(?P<protocol>\w+)://)?(?P<host>[^/\s:\[\]]+|\[[0-9A-Fa-f:.%\w]+\]):(?P<port>\d{1,5})")
_SECONDS_TO_REACH = 5
_SECONDS_TO_ANSWER = 15
"""A scheduler that is busy is slow to answer; one that is not there, or nothing of dask's, never does."""
# Looking at itself a hundred times a second in every process takes dask a tenth of a core, for pages nobody opens.
_LOOK_AWAY = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.scheduler.active-memory-manager.start": False,
}
_MOST_SECONDS_TO_DIE = 10


def dask_setup(worker: "Worker") -> None:
    """Leave Ctrl-C, which a terminal tells every process, to the one that started this worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def check_cluster(scheduler: str, workers: int = 0) -> None:
    """Refuse what can be no cluster, without looking for it.

    Raises
    ------
    EmbedctlError
        If a cluster is to be started and named as well, or its address is none.
    """
    if scheduler and workers:
        raise EmbedctlError("--workers starts a cluster, and --scheduler names one", "leave one of them out")
    found = _ADDRESS.fullmatch(scheduler)
    if scheduler and not (found and 0 < int(found["port"]) < 65536):
        raise EmbedctlError(
            f"'{scheduler}' is no address of a dask scheduler",
            "it has a host and a port, as tcp://host:8786; the scheduler's log begins with it",
        )


@contextmanager
def connected(scheduler: str = "", workers: int = 0) -> "Iterator[Client]":
    """Yield a client of the cluster at an address, or of one that is started here and ends with it.

    Parameters
    ----------
    scheduler : str
        Address of a dask scheduler; empty to start one.
    workers : int
        Processes to start on this computer, of one thread each.

    Raises
    ------
    EmbedctlError
        If no scheduler answers, or none does any more; or if one is named and another is to be started.
    """
    check_cluster(scheduler, workers)
    if scheduler:
        _knock(scheduler)
    import dask.config
    from distributed import Client, LocalCluster  # 1.8 s: only when asked for

    if scheduler:
        with _without_dasks_words(), Client(scheduler, set_as_default=False) as client:
            try:
                yield client
            except Exception as problem:
                if isinstance(problem, EmbedctlError) or not _lost_it(client, problem):
                    raise
                raise EmbedctlError(
                    f"the scheduler at {scheduler} is gone", "start one again and run the same command: it goes on"
                ) from problem
        return
    # Dask's own limit counts mapped files and caches of torch as memory, and kills workers for it.
    with (
        dask.config.set({**_LOOK_AWAY, "distributed.worker.preload": [__name__]}),
        _safe_path(),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=":0",
            silence_logs=logging.ERROR,  # that a worker took four seconds to end is no news
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def end_at_once(client: "Client") -> None:
    """End the workers that were started here, in the middle of what they do: what is committed stays."""
    import psutil

    nannies = list(getattr(client.cluster, "workers", {}).values())
    found = []
    for nanny in nannies:
        nanny.close_gracefully()  # or it starts another worker first
        if nanny.pid and psutil.pid_exists(nanny.pid):
            found.append(psutil.Process(nanny.pid))
            found[-1].kill()
    psutil.wait_procs(found, timeout=_MOST_SECONDS_TO_DIE)


def _knock(scheduler: str) -> None:
    """Refuse an address where no scheduler answers: a client that waits for one in vain is hard to be rid of."""
    import asyncio
    import socket

    address = _ADDRESS.fullmatch(scheduler)
    assert address is not None  # it was checked
    try:
        if address["protocol"] in (None, "tcp", "tls", "ws", "wss"):  # where nobody listens, that is known at once
            host, port = address["host"].strip("[]"), int(address["port"])
            socket.create_connection((host, port), timeout=_SECONDS_TO_REACH).close()
        asyncio.run(_answer(scheduler))
    except (OSError, ValueError) as problem:
        why = " ".join(str(problem).split()) or f"no answer in {_SECONDS_TO_ANSWER} s"
        raise EmbedctlError(
            f"no dask scheduler at '{scheduler}': {why}",
            "its address is in the first lines of its log, as tcp://host:8786",
        ) from None


async def _answer(scheduler: str) -> None:
    """Ask who is there; ValueError where that is no scheduler."""
    import asyncio

    from distributed.core import rpc
    from distributed.security import Security

    async with asyncio.timeout(_SECONDS_TO_ANSWER):
        async with rpc(scheduler, connection_args=Security().get_connection_args("client")) as there:
            known = await there.identity()
    if known.get("type") != "Scheduler":
        raise ValueError(f"a {known.get('type')} of dask answers there")


def is_there(client: "Client") -> bool:
    """Say whether a client can still talk to its scheduler, as far as it knows."""
    return bool(client.status == "running")


def _lost_it(client: "Client", problem: Exception) -> bool:
    """Say whether something failed because its scheduler is gone, or was, until another one took its address."""
    from distributed.comm import CommClosedError

    reason = getattr(problem, "reason", "")  # of a task that was cancelled
    return reason == "scheduler-connection-lost" or isinstance(problem, CommClosedError) or not is_there(client)


@contextmanager
def _without_dasks_words() -> Iterator[None]:
    """Let dask keep to itself what it raises as well: tracebacks of a connection that it lost."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]  # each has a level of its own
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Let processes that are started inside, lost ones anew as well, import nothing from the folder they start in."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before
