"""Where the blocks of an extraction are computed: in this process, or on a dask cluster."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from pipelines.cores import n_cores
from pipelines.extract.compute import BlockDone, BlockEngine, NetworkFacts
from pipelines.extract.pace import Pace, memory
from pipelines.extract.plan import BlockTask
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import ImageSource
from pipelines.extract.targets import Target
from pipelines.progress import Progress
from stores.embeddings import EmbeddingStore

if TYPE_CHECKING:
    from pipelines.extract.forward import Networks

__all__ = ["Engine", "is_distributed", "open_engine"]


class Engine(Protocol):
    """Something that computes blocks and commits them."""

    def prepare(self, targets: Sequence[Target]) -> NetworkFacts:
        """Build the networks of ``targets``, unless they are there, and return what they say about themselves."""

    def run(self, store: EmbeddingStore, batch_size: int, tasks: Sequence[BlockTask]) -> Generator[BlockDone]:
        """Yield a record per block, in any order; closing it ends the work."""


def is_distributed(request: ExtractRequest) -> bool:
    """Say whether other processes than this one are to write."""
    return bool(request.workers or request.scheduler)


@contextmanager
def open_engine(request: ExtractRequest, source: ImageSource, progress: Progress) -> Iterator[Engine]:
    """Yield what computes the blocks of ``request``."""
    if is_distributed(request):
        from pipelines.extract.distributed import open_cluster  # 1.8 s: only when asked for

        with open_cluster(request, progress) as cluster:
            yield cluster
    else:
        yield _Here(request, source, progress)


class _Here:
    """An engine in this process."""

    def __init__(self, request: ExtractRequest, source: ImageSource, progress: Progress) -> None:
        self._request, self._source, self._progress = request, source, progress
        self._networks: Networks | None = None
        self._targets: Sequence[Target] = ()

    def prepare(self, targets: Sequence[Target]) -> NetworkFacts:
        """Build the networks of ``targets`` here."""
        self._targets = targets
        if self._networks is None or not self._networks.facts.serve(targets):
            from pipelines.extract.forward import build_networks  # torch: numbers are computed from here on

            self._networks = build_networks(self._request, targets, self._progress)
        return self._networks.facts

    def run(self, store: EmbeddingStore, batch_size: int, tasks: Sequence[BlockTask]) -> Generator[BlockDone]:
        """Yield a record per block, in order."""
        assert self._networks is not None  # prepared
        engine = BlockEngine(self._targets, self._source, store, self._networks, n_cores())
        networks, pace = self._networks, Pace()

        def advance(n_images: int, seconds: Mapping[str, float]) -> None:
            self._progress.advance(n_images, **pace.figures(n_images, seconds), **memory(networks.gpu_bytes()))

        yield from engine.run(batch_size, tasks, advance)
