"""Two dask workers of one core against one process of two, and what a task costs."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.extract.measuring import BATCH, Clock, line
from pipelines.extract.request import ExtractRequest


class WithChildren(Clock):
    """Counts the CPU-seconds of other processes that this one started, too."""

    def advance(self, n: int = 1, **figures: str | float) -> None:
        """Remember."""
        import psutil  # comes with dask

        here = psutil.Process()
        used = [process.cpu_times() for process in (here, *here.children(recursive=True))]
        cpu = sum(times.user + times.system for times in used)
        self.seen.append((time.perf_counter(), cpu, self.seen[-1][2] + n))

    def between(self, n_first: int, n_last: int) -> tuple[float, float]:
        """Return seconds and CPU-seconds per image once networks are built, and before a worker has nothing to do."""
        begun = next(seen for seen in self.seen if seen[2] >= n_first)
        ended = next(seen for seen in self.seen if seen[2] >= self.seen[-1][2] - n_last)
        wall, cpu, n = (b - a for a, b in zip(begun, ended, strict=True))
        return wall / n, cpu / n


def dask(request: ExtractRequest, place: Path) -> None:
    """Compare two workers of one core each with one process of two, over blocks of 64 images."""
    from pipelines.extract.extract import extract

    first = place / "first"
    first.mkdir()
    for path in sorted(request.images.iterdir())[:64]:
        (first / path.name).hardlink_to(path)
    spent = []
    for workers in (0, 2):
        store, clock = place / f"dask-{workers}.zarr", WithChildren()
        extract(replace(request, models=("pixels",), images=first, store=store))  # decides the size of a block
        model = "mobilenetv3-small-tv"
        extract(replace(request, models=(model,), store=store, workers=workers), clock)
        spent.append(clock.between(4 * 64, 2 * 64))
    for what, here, there in zip(("by wall time", "by CPU-seconds"), *spent, strict=True):
        line(f"two dask workers, throughput of one process {what}", f"{here / there:.2f}", "at least 0.9")
    wall, cpu = task_overhead(request)
    line("dask: a task that does nothing", f"{1000 * wall:.2f} ms, {1000 * cpu:.2f} CPU-ms here", "below 5 ms")


def task_overhead(request: ExtractRequest, n_tasks: int = 1000) -> tuple[float, float]:
    """Return wall and CPU-seconds per block that dask takes when a block takes nothing."""
    from pipelines.extract import distributed
    from pipelines.extract.compute import BlockDone
    from pipelines.extract.plan import BlockTask
    from pipelines.progress import SILENT

    def nothing(*task: object) -> BlockDone:
        return BlockDone(0, {})

    computed, distributed._compute = distributed._compute, nothing  # type: ignore[assignment]
    try:
        with distributed.open_cluster(replace(request, workers=2), SILENT) as cluster:
            rows = {"some": np.arange(1024)}
            for n in (50, n_tasks):  # the first ones find everything out
                begun = time.perf_counter(), time.process_time()
                for _ in cluster.run(None, BATCH, [BlockTask(block, rows) for block in range(n)]):  # type: ignore[arg-type]
                    pass
            return (time.perf_counter() - begun[0]) / n_tasks, (time.process_time() - begun[1]) / n_tasks
    finally:
        distributed._compute = computed
