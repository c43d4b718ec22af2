"""A cluster of processes on this computer, and what hears of its work and may kill a worker at it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from distributed import Client, LocalCluster


class Heard:
    """What a stage said of its progress."""

    def __init__(self) -> None:
        self.n, self.workers, self.said, self.gpu = 0, set(), [], None

    def start(self, label, total, unit):
        pass

    def advance(self, n=1, **figures):
        self.n += n
        self.workers.add(figures.get("workers"))
        self.gpu = figures.get("GPU")

    def say(self, text):
        self.said.append(text)


@contextmanager
def one_worker() -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the address of a cluster of one worker with two threads, and its process id."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=True, memory_limit=0, dashboard_address=":0"
    ) as cluster:
        with Client(cluster, set_as_default=False) as client:
            pids = client.run(os.getpid)
        yield cluster.scheduler_address, pids


class Killer(Heard):
    """Kills the worker when ``is_time`` says so of the work that was heard of; once."""

    def __init__(self, pids: dict[str, int], is_time: Callable[[int], bool]) -> None:
        super().__init__()
        self.pids, self._is_time = pids, is_time

    def advance(self, n=1, **figures):
        super().advance(n, **figures)
        if self._is_time(self.n) and self.pids:
            os.kill(self.pids.popitem()[1], signal.SIGKILL)
