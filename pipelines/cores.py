"""Work on the cores of this computer, in threads: linear algebra, reading and decoding leave Python alone meanwhile.

What a task computes does not depend on the others, so the bytes are the same on any number of cores.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import TypeVar

__all__ = ["in_order", "n_cores", "n_threads", "workers"]

_AT_WORK = 1_000_000_000  # bytes that all threads together may hold

Item = TypeVar("Item")
Made = TypeVar("Made")


@contextmanager
def workers(n_threads: int, begin: Callable[[], None] | None = None) -> Iterator[Executor]:
    """Yield threads; at the end what has not begun is dropped, and waited for what has.

    Parameters
    ----------
    n_threads : int
        How many.
    begin : callable, optional
        What every thread does first.
    """
    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="cores", initializer=begin)
    try:
        yield threads
    finally:
        threads.shutdown(cancel_futures=True)


def in_order(
    work: Callable[[Item], Made], items: Iterable[Item], n_threads: int, threads: Executor | None = None
) -> Generator[Made]:
    """Yield what ``work`` makes of each item, in order, while threads are at the next ones.

    Closing the generator drops what has not begun and waits for what has, unless the threads are others'.

    Parameters
    ----------
    work : callable
        What to do.
    items : iterable
        With what.
    n_threads : int
        How many items are worked at.
    threads : Executor, optional
        By whom, if not by threads that live as long as the generator.

    Examples
    --------
    >>> list(in_order(str, range(4), n_threads=2))
    ['0', '1', '2', '3']
    """
    waiting: deque[Future[Made]] = deque()
    with nullcontext(threads) if threads else workers(n_threads) as those:
        for item in items:
            waiting.append(those.submit(work, item))
            if len(waiting) > n_threads:  # one more than are at work, so that no thread waits for the next
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def n_cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def n_threads(bytes_each: int) -> int:
    """Return how many threads may work at tasks that hold some bytes each: one per core, while they fit into 1 GB.

    Examples
    --------
    >>> n_threads(2_000_000_000)
    1
    """
    return max(1, min(n_cores(), _AT_WORK // bytes_each))
