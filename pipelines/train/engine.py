"""Where the runs of a sweep are done: in this process, in several on this computer, or on a dask cluster.

On the CPU a run uses one core, so that its bits do not depend on how many there are; the other cores take other runs.
The first run shows how long one takes, and then the rest goes to as many processes as are worth starting.
"""

from collections.abc import Callable, Iterator, Sequence

from pipelines.cores import n_cores
from pipelines.memory import BYTES_EACH, bytes_free
from pipelines.train.plan import grouped
from pipelines.train.request import Job
from pipelines.train.runner import Common, Done, Runner
from pipelines.train.stacking import MOST
from pipelines.train.targets import Targets

__all__ = ["do_runs", "n_processes"]

WORTH = 15.0  # seconds saved: half is lost again until processes have started and loaded what they need, measured


def do_runs(
    common: Common, device: str, targets: Targets, jobs: Sequence[Job], say: Callable[[str], None]
) -> Iterator[Done]:
    """Do the runs that are not finished, and yield what became of each.

    Parameters
    ----------
    common : Common
        What they have in common.
    device : str
        Where to train, in this process.
    targets : Targets
        The embeddings, open.
    jobs : sequence of Job
        The plan, subject by subject.
    say : callable
        Hears what was chosen, a line each.

    Raises
    ------
    EmbedctlError
        If no scheduler answers.
    """
    request, to_do = common.request, [job for job in jobs if not job.finished]
    if not to_do:
        return
    if request.workers or request.scheduler:
        yield from _elsewhere(common, device, to_do, request.workers)
        return
    groups = grouped(to_do, _at_most(device), common.embeddings)
    runner, n_left = Runner(common, device, targets), len(to_do)
    for number, group in enumerate(groups):
        for done in runner.do(group):
            n_left -= 1
            yield done
        if done.state == "trained" and device == "cpu":
            n = n_processes(n_left, done.seconds, n_cores(), runner.n_bytes, bytes_free)
            if n > 1:
                say(f"{n_left} runs are left, {done.seconds:.1f} s each: in {n} processes")
                del runner  # what it holds
                yield from _elsewhere(common, device, [job for some in groups[number + 1 :] for job in some], n)
                return


def n_processes(n_left: int, seconds: float, n_cores: int, n_bytes: int, n_available: Callable[[], float]) -> int:
    """Return in how many processes to do what is left; 1 is this one.

    Parameters
    ----------
    n_left : int
        Runs that are left.
    seconds : float
        What one takes.
    n_cores : int
        Cores there are.
    n_bytes : int
        What the recordings of a run take.
    n_available : callable
        Tells the bytes that are free.

    Examples
    --------
    >>> n_processes(79, 12.0, 8, 300_000_000, lambda: 64e9), n_processes(3, 0.5, 8, 300_000_000, lambda: 64e9)
    (8, 1)
    >>> n_processes(79, 12.0, 8, 9_000_000_000, lambda: 64e9)  # as many as there is memory for
    3
    """
    n = min(n_cores, n_left)
    if n < 2 or n_left * seconds * (1 - 1 / n) < WORTH:
        return 1
    # Twice: while they are loaded there is a copy.
    return max(1, min(n, int(n_available() // (BYTES_EACH + 2 * n_bytes))))


def _elsewhere(common: Common, device: str, jobs: Sequence[Job], n_workers: int) -> Iterator[Done]:
    from pipelines.cluster import connected
    from pipelines.train.distributed import device_there, do_there

    with connected(common.request.scheduler, n_workers) as client:
        if common.request.scheduler:
            device = device_there(client, common.request.device)
        groups = grouped(jobs, _at_most(device), common.embeddings)
        yield from do_there(client, common, device, groups)


def _at_most(device: str) -> int:
    """Return how many runs may be one pass; on the CPU it saves an eighth at best, and other runs take the cores."""
    return MOST if device == "cuda" else 1
