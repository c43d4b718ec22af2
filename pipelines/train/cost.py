"""What a run will cost: on disk, by building its networks without their numbers; in time, by a trial of a few rows."""

import time
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from pipelines.train.brain_encoders import brain_encoder, prepare
from pipelines.train.brain_encoders.elsewhere import is_in_a_file
from pipelines.train.data import pick_channels, pick_window
from pipelines.train.image_head import ImageHead
from pipelines.train.losses import info_nce
from pipelines.train.recipes import Recipe
from stores.epochs import SubjectEpochs

__all__ = ["epoch_shape", "run_bytes", "run_seconds", "seconds_per_row", "seconds_per_step"]

FIXED = 0.15  # seconds: the test, and what is written, measured


def run_bytes(epochs: SubjectEpochs, recipe: Recipe, kind: str, n_features: int, n_gallery: int) -> int:
    """Return the bytes of a run: its checkpoint, two score matrices and the brain embeddings of the test images.

    Parameters
    ----------
    epochs : SubjectEpochs
        The subject.
    recipe : Recipe
        The recipe.
    kind : str
        Name of the brain encoder.
    n_features : int
        Width of the image embedding.
    n_gallery : int
        Images that the one shown is told apart from, itself included.

    Raises
    ------
    EmbedctlError
        If the window does not fit the epochs, or holds fewer samples than the brain encoder needs.
    """
    n_chans, n_times = epoch_shape(epochs, recipe)
    dim = min(recipe.dim or n_features, n_features)
    with torch.device("cpu" if is_in_a_file(kind) else "meta"):  # one of a person's own may look at its numbers
        model = nn.ModuleList([brain_encoder(kind)(n_chans, n_times, dim), ImageHead(recipe.image_head, dim)])
    n_test = len(epochs.test.image_ids)
    numbers = sum(values.numel() for values in model.state_dict().values()) + n_test * (2 * n_gallery + dim)
    return 4 * (numbers + (n_features * dim if dim < n_features else 0))


def run_seconds(training: Sequence[SubjectEpochs], recipe: Recipe, kind: str, n_features: int) -> float:
    """Return about what a run takes on one core of this computer as it is now, if it makes all its passes.

    Parameters
    ----------
    training : sequence of SubjectEpochs
        Who is trained on.
    recipe : Recipe
        The recipe.
    kind : str
        Name of the brain encoder.
    n_features : int
        Width of the image embedding.
    """
    valid = [np.asarray(one.train.valid) for one in training]
    n_rows = sum(int(one.sum() if recipe.train_on == "trials" else one.any(axis=1).sum()) for one in valid)
    shape = (*epoch_shape(training[0], recipe), min(recipe.dim or n_features, n_features))
    # What is held out is no step, but embedded and ranked in every pass: that costs about as much.
    a_pass = n_rows * seconds_per_row(kind, *shape) + n_rows // min(recipe.batch, n_rows) * seconds_per_step(
        kind, *shape
    )
    return FIXED + recipe.passes * a_pass


def epoch_shape(epochs: SubjectEpochs, recipe: Recipe) -> tuple[int, int]:
    """Return how many channels and samples of a subject a recipe uses; raises as `run_bytes`."""
    window = pick_window(epochs, recipe)
    return len(pick_channels(epochs, recipe)[0]), 1 if window is None else len(window)


@lru_cache(maxsize=64)  # of a sweep all runs have the same network
def seconds_per_row(name: str, n_chans: int, n_times: int, dim: int = 768, n_rows: int = 64) -> float:
    """Measure how long a row takes through a brain encoder, forwards and backwards, on one core as it is now."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        kind = brain_encoder(name)
        model, rows = kind(n_chans, n_times, dim), prepare(kind, torch.randn(n_rows, n_chans, n_times))
        images, spent = torch.randn(n_rows, dim), 0.0
        for _ in range(2):  # the first warms up
            started = time.process_time()
            info_nce(model(rows), images, 10.0).backward()  # type: ignore[no-untyped-call]
            spent = time.process_time() - started
    finally:
        torch.set_num_threads(threads)
    return spent / n_rows


@lru_cache(maxsize=64)
def seconds_per_step(name: str, n_chans: int, n_times: int, dim: int = 768) -> float:
    """Measure how long the optimiser takes for a step, however many rows there are in a batch, on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        weights = list(brain_encoder(name)(n_chans, n_times, dim).parameters())
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        optimiser, spent = torch.optim.AdamW(weights, lr=0.0, fused=True), 0.0
        for _ in range(3):  # the first makes its room
            started = time.process_time()
            optimiser.step()
            spent = time.process_time() - started
    finally:
        torch.set_num_threads(threads)
    return spent
