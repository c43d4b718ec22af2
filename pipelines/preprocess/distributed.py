"""Subjects in other processes, on this computer or on a dask cluster: each reads, whitens and writes a whole one.

Every computer of a cluster sees recordings and store under the same paths. Subjects are locked in the store one by
one, so that workers meet nowhere else; a lost worker's subject goes on at its next block of images on another. What a
worker does is `pipelines.preprocess.preprocess.preprocess` of one subject, so the bytes are those of this process.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipelines.cluster import connected
from pipelines.preprocess.request import PreprocessRequest, SubjectReport
from pipelines.progress import Progress
from stores.errors import EmbedctlError
from stores.names import subject_name

__all__ = ["n_processes", "write_elsewhere"]

BYTES_EACH = 2e9  # that a process may come to hold: 1 GB at work, its libraries, and results on their way
WORTH = 1e9  # bytes to write, below which starting processes takes longer than they save: it takes about 5 s
_TOLD_EVERY = 0.5  # s between two messages of a worker


def n_processes(n_subjects: int, n_bytes: int, n_cores: int, n_busy: int, n_available: Callable[[], float]) -> int:
    """Return in how many processes to write subjects; 1 is this one.

    Parameters
    ----------
    n_subjects, n_bytes : int
        Subjects that are left, and bytes to write of them.
    n_cores : int
        Cores there are.
    n_busy : int
        How many cores one subject keeps busy throughout: one process does not use more.
    n_available : callable
        Tells the bytes of memory that are free.

    Examples
    --------
    >>> n_processes(10, 53_000_000_000, 16, 4, lambda: 64e9), n_processes(10, 53_000_000_000, 2, 4, lambda: 64e9)
    (4, 1)
    >>> n_processes(10, 53_000_000_000, 16, 4, lambda: 5e9)  # as many as there is memory for
    2
    """
    n = min(n_subjects, n_cores // n_busy)
    if n < 2 or n_bytes < WORTH:
        return 1
    return max(1, min(n, int(n_available() // BYTES_EACH)))


def bytes_available() -> float:
    """Return the bytes of memory that this computer, or the container, has free."""
    import psutil
    from distributed.system import MEMORY_LIMIT

    return float(min(MEMORY_LIMIT, psutil.virtual_memory().available))


def write_elsewhere(
    request: PreprocessRequest, steps: Sequence[tuple[SubjectReport, int]], n_workers: int, progress: Progress
) -> None:
    """Write subjects on the workers of ``request.scheduler``, or of a cluster that is started here and ends with this.

    Parameters
    ----------
    request : PreprocessRequest
        What is asked.
    steps : sequence of (SubjectReport, int)
        The line of every subject, which is completed, and how many epochs and images there are to go through.
    n_workers : int
        Processes to start, where no scheduler is named.
    progress : Progress
        Hears of all subjects as of one piece of work.

    Raises
    ------
    EmbedctlError
        If no scheduler answers, a subject cannot be written, or workers keep dying at one.
    """
    alone = replace(
        request,
        raw=request.raw_folder.resolve(),
        store=request.store.resolve(),
        recipe=str(Path(request.recipe).resolve()) if Path(request.recipe).is_file() else request.recipe,
        scheduler="",
    )
    where = "on the cluster" if request.scheduler else f"in {n_workers} processes"
    progress.start(f"{len(steps)} subjects {where}", sum(n for _, n in steps), "epochs and images")
    together = _Together(progress, {line.subject: n for line, n in steps})
    with connected(request.scheduler, 0 if request.scheduler else n_workers) as client:
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        topic = f"embedctl-{uuid4().hex}"
        client.subscribe_topic(topic, lambda event: together.hear(*event[1]))
        asked = {
            client.submit(_write_one, replace(alone, subjects=(line.subject,)), topic, pure=False): line
            for line, _ in steps
        }
        try:
            for future in as_completed(asked, loop=client.loop):
                line = asked[future]
                try:
                    made: SubjectReport = future.result()
                except KilledWorker as problem:
                    raise EmbedctlError(
                        f"workers died four times with {subject_name(line.subject)} in hand",
                        "look at their logs: often it is memory",
                    ) from problem
                together.finish(line.subject, [note for note in made.notes if note not in line.notes])
                line.state, line.seconds, line.counts, line.notes = made.state, made.seconds, made.counts, made.notes
        finally:
            client.cancel(list(asked))  # what has not begun


class _Together:
    """What all workers have done so far, as one piece of work: messages may come late, twice or never."""

    def __init__(self, progress: Progress, left: dict[int, int]) -> None:
        self._progress, self._left, self._lock = progress, left, threading.Lock()

    def hear(self, subject: int, n: int) -> None:
        """Count steps of a subject, no more than it has."""
        with self._lock:
            counted = min(n, self._left[subject])
            self._left[subject] -= counted
            if counted:
                self._progress.advance(counted)

    def finish(self, subject: int, notes: Sequence[str]) -> None:
        """Count what is left of a subject that is written, and say what was found in it."""
        self.hear(subject, self._left[subject])
        with self._lock:
            for note in notes:
                self._progress.say(note)


class _Told:
    """A `Progress` on a worker, whose steps are told to whoever asked; notes come with the report."""

    def __init__(self, tell: Callable[[Any], None], subject: int) -> None:
        self._tell, self._subject = tell, subject
        self._n, self._last = 0, time.monotonic()

    def start(self, label: str, total: int, unit: str) -> None:
        """Say nothing: the whole was announced where it was asked for."""

    def advance(self, n: int = 1, **figures: str | float) -> None:
        """Tell how far it has come, now and then."""
        self._n += n
        if time.monotonic() - self._last > _TOLD_EVERY:
            self._tell([self._subject, self._n])
            self._n, self._last = 0, time.monotonic()

    def say(self, text: str) -> None:
        """Say nothing: it is in the report."""


def _write_one(request: PreprocessRequest, topic: str) -> SubjectReport:
    from distributed import get_worker

    from pipelines.preprocess.preprocess import preprocess

    assert request.subjects
    worker = get_worker()
    told = _Told(lambda message: worker.log_event(topic, message), request.subjects[0])
    return preprocess(request, told).subjects[0]
