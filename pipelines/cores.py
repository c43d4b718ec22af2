"""Work on the cores of this computer, in threads: linear algebra, reading and decoding leave Python alone meanwhile.

What a task computes does not depend on the others, so the bytes are the same on any number of cores.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order", "n_cores"]

Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(
    work: Callable[[Item], Made], items: Iterable[Item], n_threads: int, begin: Callable[[], None] | None = None
) -> Generator[Made]:
    """Yield what ``work`` makes of each item, in order, while threads are at the next ones.

    Closing the generator drops what has not begun, and waits for what has.

    Examples
    --------
    >>> list(in_order(str, range(4), n_threads=2))
    ['0', '1', '2', '3']
    """
    waiting: deque[Future[Made]] = deque()
    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="cores", initializer=begin)
    try:
        for item in items:
            waiting.append(threads.submit(work, item))
            if len(waiting) > n_threads:  # one more than are at work, so that no thread waits for the next
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def n_cores() -> int:
    """Return the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
