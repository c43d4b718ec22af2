"""The blocks of an extraction on a dask cluster: one started here (``--workers``) or any other (``--scheduler``).

A task is the number of a block and the rows it lacks; the worker computes and commits them itself and answers with a
small record. Networks are never sent: a worker builds them from the registry's rows when its first task comes, and
keeps them. A worker that is lost loses nothing that was committed, and dask gives its tasks to another.

This process holds the part of the store, all of it, on behalf of the workers.
"""

import asyncio
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any, cast
from uuid import uuid4

from distributed import Client, Worker, WorkerPlugin, as_completed, get_worker
from distributed.scheduler import KilledWorker

from pipelines.allocator import kept_memory
from pipelines.cluster import connected, end_at_once, is_there
from pipelines.cores import n_cores
from pipelines.encoders.key import versions_that_matter
from pipelines.extract.compute import BlockDone, BlockEngine, NetworkFacts
from pipelines.extract.forward import Networks, build_networks
from pipelines.extract.pace import Pace, memory
from pipelines.extract.plan import BlockTask
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import open_images
from pipelines.extract.targets import Target
from pipelines.progress import Progress
from stores.blocks import ranges_of, rows_of
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, StoreMismatch
from stores.owners import HOST
from stores.parts import WHOLE

__all__ = ["open_cluster"]

# Tasks per worker that are sent, at most; more follow once half of them are done: enough that none is idle and that
# many go at once, which costs the scheduler less, and few enough that a plan of any size is never sent whole.
_WINDOW = 8
_SECONDS_BETWEEN_COUNTS = 0.5


@contextmanager
def open_cluster(request: ExtractRequest, progress: Progress) -> Iterator["Cluster"]:
    """Connect to the cluster a request names, or start one of processes on this computer.

    Raises
    ------
    EmbedctlError
        If no scheduler answers.
    """
    # Who started the workers of another cluster knows how many cores each has.
    n_each = 0 if request.scheduler else max(1, n_cores() // max(1, request.workers))
    with connected(request.scheduler, request.workers) as client:
        yield Cluster(client, request, progress, n_cores=n_each)


class Cluster:
    """An engine on the workers of a dask cluster.

    Parameters
    ----------
    client : Client
        The way to them.
    request : ExtractRequest
        What is asked.
    progress : Progress
        Who listens.
    n_cores : int
        Cores of one worker; 0 leaves it to whoever started the workers.
    """

    def __init__(self, client: Client, request: ExtractRequest, progress: Progress, n_cores: int) -> None:
        self._client, self._progress, self._n_cores = client, progress, n_cores
        weights = Path(request.weights)
        self._request = replace(
            request,
            images=request.images.resolve(),
            store=request.store.resolve(),
            weights=str(weights.absolute()) if weights.exists() else request.weights,
        )
        self._plugin = ""
        self._targets: tuple[Target, ...] = ()

    def prepare(self, targets: Sequence[Target]) -> NetworkFacts:
        """Tell every worker, also those to come, which networks it will need, and let one of them build them."""
        # Without what the store holds of them: that is looked up, and grows with the number of embeddings.
        bare = tuple(replace(target, stored=()) for target in targets)
        if bare == self._targets:
            return self._facts
        if self._plugin:
            self._client.unregister_worker_plugin(self._plugin)
        self._targets, self._plugin = bare, f"embedctl-{uuid4().hex}"
        self._client.register_plugin(Encoders(self._request, bare, self._n_cores), name=self._plugin)
        if not self._client.nthreads():
            self._progress.say(f"waiting for workers of {self._request.scheduler}")
        self._facts: NetworkFacts
        self._facts, said = self._client.submit(_facts, self._plugin, pure=False).result()
        for text in said:
            self._progress.say(text)
        return self._facts

    def run(self, store: EmbeddingStore, batch_size: int, tasks: Sequence[BlockTask]) -> Generator[BlockDone]:
        """Yield a record per block, as they finish."""
        todo, pace, run = iter(tasks), Pace(), uuid4().hex

        def more(n: int) -> list[Any]:
            """Send some tasks at once."""
            some = list(islice(todo, n))
            lacking = [{group: ranges_of(rows) for group, rows in task.rows.items()} for task in some]
            blocks = [task.block for task in some]
            compute = partial(_compute, self._plugin, run, batch_size)
            keys = [f"block-{run}-{block}" for block in blocks]
            return self._client.map(compute, blocks, lacking, key=keys, priority=-blocks[0]) if blocks else []

        n_workers, counted = max(1, len(self._client.nthreads())), perf_counter()
        running = as_completed(more(_WINDOW * n_workers), loop=self._client.loop)
        waiting = {future for future in running.futures}
        gpu_bytes = 0
        try:
            for future, done in self._answers(running):
                waiting.discard(future)
                if perf_counter() - counted > _SECONDS_BETWEEN_COUNTS:
                    n_workers, counted = max(1, len(self._client.nthreads())), perf_counter()
                if len(waiting) <= _WINDOW * n_workers // 2:
                    new = more(_WINDOW * n_workers - len(waiting))
                    waiting.update(new)
                    running.update(new)
                gpu_bytes = max(gpu_bytes, done.gpu_bytes)  # of the worker that takes the most
                figures = pace.figures(done.n_images, done.seconds) | memory(gpu_bytes)
                self._progress.advance(done.n_images, **figures, workers=str(n_workers))
                yield done
        except KilledWorker as problem:
            block = str(problem.task).rpartition("-")[2]
            raise EmbedctlError(
                f"workers died four times with block {block} in hand", "look at their logs: often it is memory"
            ) from problem
        except (KeyboardInterrupt, SystemExit):
            if not self._request.scheduler:  # whoever ends the program does not wait for networks at work
                end_at_once(self._client)
                waiting.clear()
            raise
        finally:
            self._stop(waiting, run)

    def _answers(self, running: as_completed) -> Generator[tuple[Any, BlockDone]]:
        """Yield what is done with its answer: those that are done together are fetched together."""
        for futures in running.batches():
            yield from zip(futures, self._client.gather(list(futures)), strict=True)

    def _stop(self, waiting: "set[Any]", run: str) -> None:
        """Drop what has not begun, and wait for the batch of what has: nobody writes once the store is let go."""
        if waiting and is_there(self._client):
            self._client.cancel(list(waiting))
            self._client.run(_settle, self._plugin, run)


class Said:
    """What a worker has to say, kept until somebody asks."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.say = self.lines.append

    def start(self, label: str, total: int, unit: str) -> None:
        """Say nothing: its bar would be one of many."""

    def advance(self, n: int = 1, **figures: str | float) -> None:
        """Say nothing."""


class Encoders(WorkerPlugin):  # type: ignore[misc]
    """The networks of one extraction on one worker, built when the first task comes.

    Parameters
    ----------
    request : ExtractRequest
        What is asked.
    targets : tuple of Target
        Embeddings to compute; each names the row of its encoder in the registry.
    n_cores : int
        Cores of one worker; 0 leaves it as it is.
    """

    def __init__(self, request: ExtractRequest, targets: tuple[Target, ...], n_cores: int) -> None:
        self._request, self._targets, self._n_cores = request, targets, n_cores

    def setup(self, worker: Worker) -> None:
        """Build nothing yet: that takes long, and a worker that cannot answer counts as lost."""
        self.turn = threading.Lock()
        self.ended: set[str] = set()  # runs that nobody waits for any more
        self.said = Said()
        self._memory = ExitStack()

    def teardown(self, worker: Worker) -> None:
        """Give memory back."""
        self._memory.close()

    @cached_property
    def networks(self) -> Networks:
        """The networks of all targets.

        Raises
        ------
        StoreMismatch
            If a package that changes the numbers has another version here than where the command was given.
        """
        for target in self._targets:
            here = versions_that_matter(target.spec, target.weights.label, target.name.view)
            if here != (asked := target.recipe["versions"]):
                package = next(name for name in asked if here.get(name) != asked[name])
                what = (
                    f"{package} is {here.get(package)} on a worker on {HOST}, not {asked[package]}: rows would differ"
                )
                raise StoreMismatch(what, "give all workers the packages of the computer that the command runs on")
        return build_networks(self._request, self._targets, self.said)

    @cached_property
    def engine(self) -> BlockEngine:
        """What computes blocks, in the way that the store recorded when the first worker had said how."""
        store = EmbeddingStore.open(self._request.store)
        store.help_with(WHOLE)
        stored = {entry.group: entry for entry in store.entries()}
        recorded = [(target, stored[target.group]) for target in self._targets]
        self._targets = tuple(
            replace(target, device=entry.provenance.get("device", target.device), form=entry.form)
            for target, entry in recorded
        )
        if "networks" in self.__dict__ and not self.networks.facts.serve(self._targets):
            del self.networks
        source = open_images(self._request.images)
        self._memory.enter_context(kept_memory())  # a block is short: the next one needs the memory of this one
        return BlockEngine(self._targets, source, store, self.networks, self._n_cores or n_cores())


def _mine(plugin: str) -> Encoders:
    return cast(Encoders, get_worker().plugins[plugin])


def _facts(plugin: str) -> tuple[NetworkFacts, list[str]]:
    mine = _mine(plugin)
    with mine.turn:
        return mine.networks.facts, mine.said.lines


def _compute(
    plugin: str, run: str, batch_size: int, block: int, lacking: dict[str, list[list[int]]]
) -> BlockDone | None:
    task = BlockTask(block, {group: rows_of(ranges) for group, ranges in lacking.items()})
    mine = _mine(plugin)

    def go_on(n_images: int = 0, seconds: Mapping[str, float] | None = None) -> None:
        if run in mine.ended:
            raise _Ended

    with mine.turn, suppress(_Ended):  # a worker may have several threads, and networks are not made for two at once
        go_on()
        (done,) = mine.engine.run(batch_size, [task], go_on)
        return done
    return None  # to nobody


class _Ended(Exception):
    """Nobody waits for this block any more."""


async def _settle(plugin: str, run: str, dask_worker: Worker) -> None:
    mine = cast(Encoders, dask_worker.plugins[plugin])
    mine.ended.add(run)
    while mine.turn.locked():
        await asyncio.sleep(0.05)
