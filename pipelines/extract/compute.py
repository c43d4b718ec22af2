"""Computing and committing blocks: what an embedded run, a shard and a dask worker all do, with the same bytes."""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from pipelines.allocator import kept_memory
from pipelines.cores import in_order, workers
from pipelines.extract.block import MOST_BYTES, BlockRows
from pipelines.extract.loading import LoadedImage, load_all, prefetch, wants_memory
from pipelines.extract.pace import add
from pipelines.extract.plan import Batch, BlockTask, batches
from pipelines.extract.records import record_images
from pipelines.extract.sources import ImageSource
from pipelines.extract.targets import Target
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

if TYPE_CHECKING:
    from pipelines.extract.forward import Networks

__all__ = ["BlockDone", "BlockEngine", "NetworkFacts"]

_MOST_SECONDS = 300.0
"""Between two commits, however long a block takes: so much a kill may cost."""

_SMALLER = "--overwrite with a smaller --batch-size: the store has recorded this one"

_MOST_AT_ONCE = 8
"""Images that a thread loads one after the other: every piece of work costs the interpreter's time, and a batch waits
for its last one."""

_Todo = list[tuple[BlockTask, list[Batch]]]
_Rows = dict[EmbeddingName, np.ndarray]
_Advance = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class NetworkFacts:
    """What the networks of an extraction say about themselves: enough to make room for their rows.

    Attributes
    ----------
    widths : dict of EmbeddingName to int
        Numbers per image.
    token_shapes : dict of EmbeddingName to (int, int)
        (token, dim) of the embeddings whose rows are flattened tokens.
    weights_sources : dict of str to str
        Where the weights of each encoder came from.
    device : str
        Where they are.
    threads : dict of EmbeddingName to int
        Of torch in a forward pass.
    forms : dict of EmbeddingName to str
        Of the network: ``plain``, ``folded`` or ``winograd``.
    """

    widths: dict[EmbeddingName, int]
    token_shapes: dict[EmbeddingName, tuple[int, int]]
    weights_sources: dict[str, str]
    device: str
    threads: dict[EmbeddingName, int]
    forms: dict[EmbeddingName, str]

    def serve(self, targets: Sequence[Target]) -> bool:
        """Say whether these networks give ``targets``, as a store recorded that they were computed."""
        return all(
            t.name in self.threads
            and t.threads in (0, self.threads[t.name])
            and t.device in ("", self.device)
            and t.form_at(self.device) in ("", self.forms[t.name])
            for t in targets
        )


@dataclass(frozen=True)
class BlockDone:
    """What became of one block: a small record, never its numbers.

    Attributes
    ----------
    n_images : int
        Images read.
    written : dict of str to int
        Rows committed, by group.
    unfit : frozenset of str
        Groups that float16 cannot hold; nothing of them was committed.
    seconds : dict of str to float
        By stage.
    gpu_bytes : int
        The most that was taken of the memory of a GPU until then.
    """

    n_images: int
    written: dict[str, int]
    unfit: frozenset[str] = frozenset()
    seconds: dict[str, float] = field(default_factory=dict)
    gpu_bytes: int = 0


class BlockEngine:
    """Networks at work on the blocks of one store.

    Parameters
    ----------
    targets : sequence of Target
        Embeddings the blocks may lack.
    source : ImageSource
        The images.
    store : EmbeddingStore
        Locked, or with these blocks in the part that is held.
    networks : Networks
        Of all targets.
    n_cores : int
        Cores to use: for threads that read and decode, and for forward passes.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        source: ImageSource,
        store: EmbeddingStore,
        networks: "Networks",
        n_cores: int,
    ) -> None:
        self._source, self._store, self._networks, self._n_cores = source, store, networks, n_cores
        self._names = {target.group: target.name for target in targets}
        self._entries = {entry.group: entry for entry in store.entries()}
        self._image_ids = store.image_ids
        self._known = store.images()

    def run(self, batch_size: int, tasks: Sequence[BlockTask], advance: _Advance) -> Generator[BlockDone]:
        """Compute and commit one block after the other; threads read ahead into the next one.

        Parameters
        ----------
        batch_size : int
            Rows of a forward pass.
        tasks : sequence of BlockTask
            The blocks.
        advance : callable
            Is told how many more images are done, and the seconds of every stage.
        """
        todo = [(task, batches(task, self._store.block_rows, batch_size)) for task in tasks]
        over = Event()
        work = (self._work(batch, over) for _, passes in todo for batch in passes)
        with (
            kept_memory(),
            self._networks.own_threads() as begin,
            self._networks.until(over),
            workers(self._n_cores, begin) as threads,
            self._lanes(threads, begin) as lanes,
            _set_at_end(over),
        ):
            computed = self._forward(batch_size, todo, prefetch(work, threads), lanes)
            wrote = 0.0
            for task, passes in todo:
                block = BlockRows(task, self._entries)
                seconds = defaultdict[str, float](float)
                read: dict[str, LoadedImage] = {}
                written, n_read, committed = Counter[str](), 0, perf_counter()
                for left, (batch, (images, rows, spent)) in zip(
                    reversed(range(len(passes))), zip(passes, computed, strict=False), strict=False
                ):
                    self._put(batch, images, rows, block)
                    n_read += len(images)
                    here = defaultdict[str, float](float, forward=spent)
                    for row, image in zip(batch.rows.tolist(), images, strict=True):
                        read[self._image_ids[row]] = replace(image, tensors={})
                        add(here, image.seconds)
                    add(seconds, here)
                    advance(len(images), {**here, "write": wrote})
                    wrote = 0.0
                    if block.unfit:  # all of it will be done again in float32: nothing of this block is worth more time
                        yield BlockDone(n_read, dict(written), frozenset(block.unfit), dict(seconds))
                        return
                    start = perf_counter()
                    if not left or block.n_bytes > MOST_BYTES or start - committed > _MOST_SECONDS:
                        record_images(self._store, self._source, read, self._known)
                        read.clear()
                        written.update(block.commit(self._store))
                        committed = perf_counter()
                        wrote = committed - start  # told with the next batch
                        seconds["write"] += wrote
                yield BlockDone(n_read, dict(written), frozenset(), dict(seconds), self._networks.gpu_bytes())

    def _work(self, batch: Batch, over: Event) -> list[Callable[[], list[LoadedImage]]]:
        """Return what threads are to do for one batch: few pieces of work, but two for every core."""
        transforms = self._networks.transforms({self._names[group] for group in batch.groups})
        ids = [self._image_ids[row] for row in batch.rows.tolist()]
        n = min(_MOST_AT_ONCE, -(-len(ids) // (2 * self._n_cores)))
        return [
            partial(load_all, self._source, transforms, ids[first : first + n], over) for first in range(0, len(ids), n)
        ]

    def _forward(
        self, batch_size: int, todo: _Todo, loaded: Iterable[list[LoadedImage]], lanes: Executor
    ) -> Generator[tuple[list[LoadedImage], _Rows, float]]:
        """Yield the images of every batch, their rows of what lacks one of them, and the seconds that took."""

        def compute(work: tuple[Batch, list[LoadedImage]]) -> tuple[list[LoadedImage], _Rows, float]:
            batch, images = work
            start = perf_counter()
            good = [position for position, image in enumerate(images) if not image.reason]
            wanted = {self._names[group] for group in batch.groups}
            places = batch.places[good]
            try:
                rows = self._networks([images[i] for i in good], places, batch_size, wanted) if good else {}
            except (MemoryError, RuntimeError) as problem:
                if wants_memory(problem):
                    raise EmbedctlError(f"not enough memory for batches of {batch_size} images", _SMALLER) from problem
                raise
            return images, rows, perf_counter() - start

        passes = (batch for _, passes in todo for batch in passes)
        return in_order(compute, zip(passes, loaded, strict=False), self._networks.n_lanes(self._n_cores), lanes)

    def _lanes(self, threads: Executor, begin: Callable[[], None]) -> AbstractContextManager[Executor]:
        """Return the threads of forward passes: those of the images where each has a core, which then all are busy."""
        n_lanes = self._networks.n_lanes(self._n_cores)
        return nullcontext(threads) if n_lanes == self._n_cores else workers(n_lanes, begin)

    def _put(self, batch: Batch, images: Sequence[LoadedImage], rows: _Rows, block: BlockRows) -> None:
        """Put what one batch gave into its block."""
        good = [position for position, image in enumerate(images) if not image.reason]
        for row, image in zip(batch.rows.tolist(), images, strict=True):
            if image.reason:
                block.refuse(row, image.reason)
        for group in batch.groups:
            if (values := rows.get(self._names[group])) is not None:
                block.put(group, batch.rows[good], values)


@contextmanager
def _set_at_end(over: Event) -> Iterator[None]:
    """Say that nobody waits any more, before threads are waited for."""
    try:
        yield
    finally:
        over.set()
