"""Threads that read, hash, decode and preprocess the images of the next batches while the networks compute.

An image is read, hashed and decoded once, whatever the number of encoders and views; each view is made once, and
preprocessed once for all encoders that see the same pixels. Pillow and torch release the interpreter while they work,
so threads suffice and nothing is copied between processes.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import dataclass, field
from threading import Event
from time import perf_counter
from typing import TYPE_CHECKING

from pipelines.extract.images import UNREADABLE, BadImage, DecodedImage, decode, unreadable
from pipelines.extract.sources import ImageSource
from pipelines.extract.views import see

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LoadedImage", "Transform", "load", "load_all", "prefetch", "wants_memory"]

Transform = Callable[[DecodedImage], "Tensor"]
"""From a decoded image to the (3, size, size) that an encoder sees."""

# Batches decoded ahead of the one that is computed: enough to hide one slow image, and little memory.
_AHEAD = 2


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """What became of one image file.

    Attributes
    ----------
    sha256 : str
        Of its bytes; empty where it could not be read.
    width, height : int
        In pixels, upright; 0 for a bad image.
    mode : str
        How the file holds its pixels.
    tensors : dict of int to Tensor
        What each transform gave, by its number; empty for a bad image.
    reason : str
        Why it is bad; empty for a good one.
    seconds : dict of str to float
        Spent in ``read``, ``decode`` and ``preprocess``, which includes views.
    """

    sha256: str
    width: int = 0
    height: int = 0
    mode: str = ""
    tensors: dict[int, "Tensor"] = field(default_factory=dict)
    reason: str = ""
    seconds: dict[str, float] = field(default_factory=dict)


def load(source: ImageSource, transforms: Mapping[int, tuple[str, Transform]], image_id: str) -> LoadedImage:
    """Read, hash and decode one image, make every view of it and preprocess each.

    Parameters
    ----------
    source : ImageSource
        Where it lies.
    transforms : mapping of int to (str, Transform)
        The view each transform takes, empty for the image as it is, and the transform.
    image_id : str
        Which image.
    """
    start = perf_counter()
    try:
        data = source.read(image_id)
    except OSError as problem:
        return LoadedImage("", reason=unreadable(problem))
    read = perf_counter()
    decoded = decode(data)
    done = perf_counter()
    seconds = {"read": read - start, "decode": done - read}
    if isinstance(decoded, BadImage):
        return LoadedImage(decoded.sha256, reason=decoded.reason, seconds=seconds)
    try:
        seen = {view: see(decoded, view) for view in {view for view, _ in transforms.values()}}
        tensors = {number: transform(seen[view]) for number, (view, transform) in transforms.items()}
    except (MemoryError, RuntimeError) as problem:
        if not wants_memory(problem):
            raise
        return LoadedImage(decoded.sha256, reason=f"{UNREADABLE}: not enough memory to preprocess it", seconds=seconds)
    seconds["preprocess"] = perf_counter() - done
    return LoadedImage(decoded.sha256, *decoded.size, decoded.mode, tensors, seconds=seconds)


def wants_memory(problem: Exception) -> bool:
    """Say whether memory was lacking: torch says so in errors of its own, on a CPU and on a GPU."""
    said = str(problem)
    return isinstance(problem, MemoryError) or "DefaultCPUAllocator" in said or "out of memory" in said


def load_all(
    source: ImageSource, transforms: Mapping[int, tuple[str, Transform]], image_ids: Sequence[str], over: Event
) -> list[LoadedImage]:
    """Load one image after the other, until ``over`` is set.

    Raises
    ------
    CancelledError
        If it is: nobody waits for the images any more.
    """
    loaded = []
    for image_id in image_ids:
        if over.is_set():
            raise CancelledError
        loaded.append(load(source, transforms, image_id))
    return loaded


def prefetch(
    batches: Iterable[Sequence[Callable[[], list[LoadedImage]]]], threads: Executor
) -> Generator[list[LoadedImage]]:
    """Yield the loaded images of each batch, in order, while threads work on the next ones.

    Parameters
    ----------
    batches : iterable of sequences of callables
        What is to be done for each batch, in pieces of some images.
    threads : Executor
        To do it.

    Examples
    --------
    >>> from pipelines.cores import workers
    >>> a, b, c = map(LoadedImage, "abc")
    >>> work = [[lambda: [a, b], lambda: [c]], [lambda: [b]]]
    >>> with workers(2) as threads:
    ...     [[image.sha256 for image in batch] for batch in prefetch(work, threads)]
    [['a', 'b', 'c'], ['b']]
    """
    waiting: deque[list[Future[list[LoadedImage]]]] = deque()
    for batch in batches:
        waiting.append([threads.submit(work) for work in batch])
        if len(waiting) > _AHEAD:
            yield _whole(waiting.popleft())
    while waiting:
        yield _whole(waiting.popleft())


def _whole(pieces: Sequence[Future[list[LoadedImage]]]) -> list[LoadedImage]:
    return [image for piece in pieces for image in piece.result()]
