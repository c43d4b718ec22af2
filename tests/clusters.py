"""A cluster of processes on this computer, and what hears of its work and may kill a worker at it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def scheduler_apart(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Yield the address and process of a scheduler that can be killed; its one worker ends with it."""
    file = folder / "scheduler.json"
    python = [sys.executable, "-m"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    words = ["distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--dashboard-address", ":0"]
    scheduler = subprocess.Popen([*python, *words, "--scheduler-file", str(file)], **quiet)
    words = ["distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-nanny"]
    words += ["--no-dashboard", "--death-timeout", "5", "--local-directory", str(folder)]
    worker = subprocess.Popen([*python, *words], env=environment, **quiet)
    try:
        until = time.monotonic() + 60
        while not file.exists() or not file.read_text().endswith("}"):
            assert scheduler.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], scheduler
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()
