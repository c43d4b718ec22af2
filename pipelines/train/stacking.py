"""Whether runs are trained in one pass: tried out with a few steps of the very runs, and only if no bit changes."""

import time
from collections.abc import Sequence
from itertools import islice

import torch

from pipelines.train.course import Course
from pipelines.train.data import Recordings
from pipelines.train.train import Against, RunConfig, learners_of, reproducible, stack

__all__ = ["MOST", "pays"]

MOST = 16  # runs in one pass: assumed, as what they save grows no more by then and their memory does
WARM_UP, STEPS = 2, 8
AT_LEAST = 1.1  # times as fast


def pays(config: RunConfig, data: Recordings, against: Sequence[Against]) -> tuple[bool, str]:
    """Say whether to train on several embeddings in one pass, and why.

    A few steps are taken both ways. One pass it is where it is faster and every brain encoder has the same weights
    after them, bit for bit, as when it is trained alone: which way was chosen shows in no result.

    Parameters
    ----------
    config, data
        As for `pipelines.train.train.train_run`.
    against : sequence of Against
        Two embeddings or more, narrowed to the same width.

    Returns
    -------
    pays : bool
        Whether it does.
    reason : str
        What was measured, as a line.
    """
    n, where = len(against), f"on {data.mean.device.type}"
    one_by_one = [_steps(config, data, [one]) for one in against]
    try:
        seconds, weights = _steps(config, data, against)
    except (RuntimeError, TypeError, ValueError) as problem:  # a network that torch.func cannot take, too little memory
        return False, f"runs one by one {where}: {n} in one pass do not work ({' '.join(str(problem).split())[:120]})"
    ratio = sum(took for took, _ in one_by_one) / seconds
    alone = [own for _, (own,) in one_by_one]
    if not all(map(torch.equal, [w for own in alone for w in own], [w for own in weights for w in own])):
        return False, f"runs one by one {where}: {n} in one pass take {1 / ratio:.2f} of the time, with other bits"
    if ratio < AT_LEAST:
        return False, f"runs one by one {where}: {n} in one pass take {1 / ratio:.2f} of the time"
    return True, f"up to {MOST} runs in one pass {where}: {n} take {1 / ratio:.2f} of the time, with the same bits"


def _steps(config: RunConfig, data: Recordings, against: Sequence[Against]) -> tuple[float, list[list[torch.Tensor]]]:
    """Take a few steps, and return the seconds of those after the first, and the weights they lead to."""
    device = data.mean.device
    with reproducible(config.seed, device):
        course = Course(config.recipe, config.seed, data)
        learners = learners_of(config, data, course, against)
        gradients = learners[0].gradients if len(learners) == 1 else stack(learners).gradients
        for learner in learners:
            learner.model.train()
        started = 0.0
        n_steps = 0
        while n_steps < WARM_UP + STEPS:
            for x, shown in islice(course.batches(), WARM_UP + STEPS - n_steps):
                if n_steps == WARM_UP:
                    started = _now(device)
                gradients(x, shown)
                for learner in learners:
                    learner.step()
                n_steps += 1
        return _now(device) - started, [[*learner.model.state_dict().values()] for learner in learners]


def _now(device: torch.device) -> float:
    """Return the time when everything asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
