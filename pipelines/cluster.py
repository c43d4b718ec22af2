"""A dask cluster: any that listens at an address, or one of processes on this computer."""

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stores.errors import EmbedctlError

if TYPE_CHECKING:
    from distributed import Client, Worker

__all__ = ["connected", "dask_setup", "end_at_once"]

_SECONDS_TO_CONNECT = 30
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
        If no scheduler answers.
    """
    import dask.config
    from distributed import Client, LocalCluster  # 1.8 s: only when asked for

    if scheduler:
        try:
            _check_form(scheduler)
            client = Client(scheduler, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as problem:
            raise EmbedctlError(
                f"no dask scheduler at '{scheduler}': {' '.join(str(problem).split())}",
                "its address is in the first lines of its log, as tcp://host:8786",
            ) from None
        with client:
            yield client
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
        nanny.auto_restart = False
        if nanny.pid and psutil.pid_exists(nanny.pid):
            found.append(psutil.Process(nanny.pid))
            found[-1].kill()
    psutil.wait_procs(found, timeout=_MOST_SECONDS_TO_DIE)


def _check_form(address: str) -> None:
    """Refuse what is no address: a client that cannot read it waits a minute for itself, and says so when it ends.

    Raises
    ------
    ValueError
        If it names no way to talk, or no port.
    """
    from distributed.comm.addressing import parse_address, parse_host_port
    from distributed.comm.registry import get_backend

    scheme, place = parse_address(address)
    get_backend(scheme)
    if scheme != "inproc":
        parse_host_port(place)


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
