"""The runs of a sweep on a dask cluster: one started here, or any other (``--scheduler``).

A task is one run, or the few that may be trained in one pass. They come subject by subject, and a worker keeps the
subject it has loaded, so that it loads each once. A worker that is lost loses no run that was written, and dask gives
its task to another.
"""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast
from uuid import uuid4

from distributed import Client, Worker, WorkerPlugin, as_completed, get_worker
from distributed.scheduler import KilledWorker

from pipelines.train.brain_encoders.elsewhere import trust
from pipelines.train.request import Job
from pipelines.train.runner import Common, Done, Runner, device_for
from stores.errors import EmbedctlError
from stores.locks import DEAD_AFTER, HEARTBEAT

__all__ = ["device_there", "do_there"]


def device_there(client: Client, asked: str) -> str:
    """Return where workers will train, as one of them says."""
    device: str = client.submit(device_for, asked, pure=False).result()
    return device


def do_there(client: Client, common: Common, device: str, groups: Sequence[Sequence[Job]]) -> Iterator[Done]:
    """Do runs on the workers of a cluster, and yield what became of each, as they end.

    Parameters
    ----------
    client : Client
        The way to the workers.
    common : Common
        What the runs have in common.
    device : str
        Where they train.
    groups : sequence of sequence of Job
        Tasks, those of one subject next to each other.

    Raises
    ------
    EmbedctlError
        If workers keep dying at one run.
    """
    request = common.request
    absolute = replace(
        request, embeddings=request.embeddings.resolve(), epochs=request.epochs.resolve(), runs=request.runs.resolve()
    )
    plugin = f"embedctl-{uuid4().hex}"
    client.register_plugin(Trainer(replace(common, request=absolute), device), name=plugin)
    job_of = {job.run_id: job for group in groups for job in group}
    held: list[Done] = []
    for done in _each(client, plugin, groups, 0.0):
        if done.state == "held":
            held.append(done)
        else:
            yield done
    # A worker that was lost on another computer holds its runs until it has been silent for long enough.
    wait = DEAD_AFTER + 2 * HEARTBEAT if request.scheduler else 0.0
    yield from _each(client, plugin, [[job_of[done.run_id]] for done in held], wait)


def _each(client: Client, plugin: str, groups: Sequence[Sequence[Job]], wait: float) -> Iterator[Done]:
    tasks = [
        client.submit(_do, plugin, list(group), wait, priority=-number, pure=False)
        for number, group in enumerate(groups)
    ]
    run_of = {task: f"run '{group[0].run_id}'" for task, group in zip(tasks, groups, strict=True)}
    try:
        for task in as_completed(tasks, loop=client.loop):
            try:
                found: list[Done] = task.result()
            except KilledWorker as problem:
                raise EmbedctlError(
                    f"workers died four times with {run_of[task]} in hand", "look at their logs: often it is memory"
                ) from problem
            yield from found
    finally:
        client.cancel(tasks)  # what has not begun


class Trainer(WorkerPlugin):  # type: ignore[misc]
    """What does the runs of one sweep on one worker.

    Parameters
    ----------
    common : Common
        What they have in common.
    device : str
        Where they train.
    """

    def __init__(self, common: Common, device: str) -> None:
        self._common, self._device = common, device

    def setup(self, worker: Worker) -> None:
        """Load nothing yet: that takes long, and a worker that cannot answer counts as lost."""
        self.turn = threading.Lock()
        trust(*self._common.own)  # what the person named there

    @cached_property
    def runner(self) -> Runner:
        """What holds the subject."""
        return Runner(self._common, self._device)


def _do(plugin: str, jobs: list[Job], wait: float) -> list[Done]:
    mine = cast(Trainer, get_worker().plugins[plugin])
    with mine.turn:  # a worker may have several threads, and torch has one sequence of random numbers
        return list(mine.runner.do(jobs, wait))
