"""One training run, read from top to bottom: a brain encoder learns to point at frozen image embeddings.

A run is a function of its configuration and its data. On one machine the same seed gives the same bits: a run on
the CPU uses one thread, so its sums do not depend on how many cores there are. Runs of one seed on several embeddings
can be trained in one pass (`pipelines.train.stack`).
"""

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipelines.train.course import Course
from pipelines.train.data import Recordings, Test
from pipelines.train.evaluation import embed, retrieval_figures
from pipelines.train.image_head import FASTER
from pipelines.train.image_side import fit_image_side
from pipelines.train.learner import Learner
from pipelines.train.metrics import centre_scores, retrieve
from pipelines.train.recipes import Recipe

if TYPE_CHECKING:
    from pipelines.train.stack import Stack

__all__ = ["Against", "RunConfig", "RunOutcome", "learners_of", "reproducible", "stack", "train_run", "train_together"]


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What a run is asked to do, its data apart.

    Parameters
    ----------
    recipe : Recipe
        Every setting, the brain encoder too.
    seed : int
        Of the initial weights, the order of the batches, dropout and the validation split.
    """

    recipe: Recipe
    seed: int


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run leaves behind.

    Parameters
    ----------
    figures : dict
        Test and validation figures of the chosen checkpoint, by column of the results; ``checkpoint`` names the
        validation figure that chose it, and the pass; ``top1_by_repetitions`` is the top-1 of means over fewer
        repetitions, by their number.
    last : dict
        The same test figures of the last step.
    arrays : dict
        ``scores`` and ``scores_last`` (n_queries, n_gallery), ``brain`` (n_queries, dim), ``hits`` and ``target``
        (n_queries,).
    state : dict
        Weights of the chosen checkpoint: ``brain.*``, ``image.*``, ``log_scale``, and what
        `pipelines.train.image_side.ImageSide` keeps.
    metrics : list of dict
        One row per pass.
    """

    figures: dict[str, Any]
    last: dict[str, float]
    arrays: dict[str, np.ndarray]
    state: dict[str, torch.Tensor]
    metrics: list[dict[str, float]]


@dataclass(frozen=True, slots=True)
class Against:
    """What a run is trained against: an embedding, or several side by side.

    Parameters
    ----------
    target : (n_images, dim)
        Of every training image.
    gallery : (n_gallery, dim)
        Of every test image.
    widths : sequence of int
        Features of each embedding, where there are several.
    others : (n_others, dim), optional
        Of other images of the gallery's concepts, if there are some of each.
    concepts : sequence of str
        Theirs.
    """

    target: np.ndarray
    gallery: np.ndarray
    widths: Sequence[int] = ()
    others: np.ndarray | None = None
    concepts: Sequence[str] = ()


def train_run(
    config: RunConfig, data: Recordings, target: np.ndarray, gallery: np.ndarray, widths: Sequence[int] = ()
) -> RunOutcome:
    """Train one brain encoder on one embedding, choose its checkpoint on validation, and test it once.

    Parameters
    ----------
    config : RunConfig
        What to do.
    data : Recordings
        One subject, `Recordings.ready` for the brain encoder, on the device to train on.
    target : (n_images, dim)
        Embedding of every training image.
    gallery : (n_gallery, dim)
        Embedding of every test image.
    widths : sequence of int
        Features of each embedding, where several stand side by side.

    Returns
    -------
    RunOutcome
        Scores, checkpoint and figures.

    Raises
    ------
    EmbedctlError
        If nothing is left to train on, or training leaves the finite numbers.
    """
    (outcome,) = train_together(config, data, [Against(target, gallery, widths)])
    return outcome


def train_together(config: RunConfig, data: Recordings, against: Sequence[Against]) -> list[RunOutcome]:
    """Train a brain encoder on each of several embeddings in one pass, and return what each leaves behind.

    Arguments are those of `train_run`; with more than one embedding their brain encoders have to be of one shape.
    """
    recipe, device = config.recipe, data.mean.device
    started = time.perf_counter()
    with reproducible(config.seed, device):
        # ------------------------------------------------------------------ data on the device, models, optimisers
        course = Course(recipe, config.seed, data)
        learners = learners_of(config, data, course, against)
        gradients = learners[0].gradients if len(learners) == 1 else stack(learners).gradients

        # ------------------------------------------------------------------ loop
        for _ in range(recipe.passes):
            going = [learner for learner in learners if not learner.is_done]
            for learner in learners:
                learner.model.train()
            total = torch.zeros(len(learners), device=device)
            for x, shown in course.batches():
                total += gradients(x, shown)
                for learner in going:
                    learner.step()
            for learner, loss in zip(learners, total.tolist(), strict=True):
                if not learner.is_done:
                    learner.close_pass(loss / course.n_batches, course.held)
            if all(learner.is_done for learner in learners):
                break

        # ------------------------------------------------------------------ evaluation: the test set is read here, once
        outcomes = []
        for learner, one in zip(learners, against, strict=True):
            outcome = _tested(learner, data.test, one)
            outcome.figures["steps"] = len(learner.metrics) * course.n_batches
            outcomes.append(outcome)
    for outcome in outcomes:
        outcome.figures["seconds"] = (time.perf_counter() - started) / len(outcomes)
    return outcomes


def learners_of(config: RunConfig, data: Recordings, course: Course, against: Sequence[Against]) -> list[Learner]:
    """Return what learns each embedding, as it would be alone."""
    recipe, n_chans, learners = config.recipe, data.rows.shape[1], list[Learner]()
    for one in against:
        _seed(config.seed)
        side, images = fit_image_side(one.target, course.train, one.widths, recipe, data.mean.device)
        learners.append(Learner(recipe, n_chans, data.n_times, side, images))
    return learners


def stack(learners: Sequence[Learner]) -> "Stack":
    """Return learners as one, whose gradients are computed together."""
    from pipelines.train.stack import Stack  # torch.func takes two seconds: only when there are several

    return Stack(learners)


def _tested(learner: Learner, test: Test, against: Against) -> RunOutcome:
    """Score the last pass and the chosen one."""
    epochs, own, device = test.epochs, test.target, learner.images.device
    gallery = learner.side(against.gallery, device)
    brain, pictures = dict[str, torch.Tensor](), dict[str, torch.Tensor]()
    for name in ("last", "chosen"):
        model = learner.restore(name)
        brain[name], pictures[name] = embed(model["brain"], epochs), embed(model["image"], gallery)
    scores = {name: (brain[name] @ pictures[name].T).cpu().numpy() for name in brain}
    from_fewer = {  # by the network that was restored last, the chosen one
        n: (embed(model["brain"], few) @ pictures["chosen"].T).cpu().numpy() for n, few in test.fewer.items()
    }
    found = retrieve(scores["chosen"], own)
    concept_top1 = None
    if against.others is not None:
        others = embed(model["image"], learner.side(against.others, device)).cpu()
        shown = [test.concepts[row] for row in own.tolist()]
        concept_top1 = retrieve(*centre_scores(brain["chosen"].cpu(), others, against.concepts, shown)).top(1)
    last = retrieval_figures(scores["last"], own)
    figures = retrieval_figures(scores["chosen"], own) | {
        "concept_top1": concept_top1,
        "last_top1": last["top1"],
        "top1_by_repetitions": {str(n): retrieve(one, own).top(1) for n, one in from_fewer.items()},
        "val_top1": learner.metrics[learner.chosen_pass - 1]["val_top1"],
        "noise_ceiling": test.noise_ceiling,
        "chance": 1 / found.n_way,
        "n_way": found.n_way,
        "n_queries": len(own),
        "checkpoint": f"{learner.recipe.choose_by}:{learner.chosen_pass}",
    }
    if learner.side.stacked:
        figures["route"] = (FASTER * learner.states["chosen"]["image.route"]).softmax(dim=0).tolist()
    arrays = {
        "scores": scores["chosen"],
        "scores_last": scores["last"],
        "brain": brain["chosen"].cpu().numpy(),
        "hits": found.hits(1),
        "target": own,
    }
    return RunOutcome(figures, last, arrays, learner.states["chosen"] | learner.side.state(), learner.metrics)


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch, and NumPy and Python for code of one's own; use one CPU thread; and leave all as it was."""
    threads, numpy_was, python_was = torch.get_num_threads(), np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _seed(seed)
        if device.type == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            np.random.set_state(numpy_was)
            random.setstate(python_was)


def _seed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
