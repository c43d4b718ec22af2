"""Work on the cores of this computer, in threads: linear algebra, Fourier transforms and reading leave Python alone.

What a task computes does not depend on the others, so the bytes are the same on any number of cores.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order", "n_cores"]

Task = TypeVar("Task")
Result = TypeVar("Result")


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
    """Yield every task with its result, in the order of the tasks; as many as there are cores are at work.

    Examples
    --------
    >>> list(in_order(abs, [-2, 1]))
    [(-2, 2), (1, 1)]
    """
    n = n_cores()
    if n == 1:
        yield from ((task, work(task)) for task in tasks)
        return
    with ThreadPoolExecutor(n) as pool:
        ahead: deque[tuple[Task, Future[Result]]] = deque()
        try:
            for task in tasks:
                ahead.append((task, pool.submit(work, task)))
                if len(ahead) > n:
                    first, result = ahead.popleft()
                    yield first, result.result()
            while ahead:
                first, result = ahead.popleft()
                yield first, result.result()
        finally:
            for _, result in ahead:
                result.cancel()
