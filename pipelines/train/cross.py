"""The protocol ``cross``: train on other subjects, validate on one of them, test on the subject that was left out.

Of the training subjects no test trial is read, of the tested subject no training trial: its training recordings have
taken part in nothing but the whitening that `embedctl preprocess` did. The checkpoint is chosen on a subject that was
not trained on and concepts that nobody's training saw, as it will be used.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import nn

from pipelines.memory import require
from pipelines.train.brain_encoders import prepare
from pipelines.train.data import Recordings, load_test, load_training, pick_channels, pick_window
from pipelines.train.recipes import Recipe
from pipelines.train.repetitions import BLOCK_BYTES
from stores.epochs import SubjectEpochs
from stores.errors import EmbedctlError

__all__ = ["load_cross", "memory_of", "require_alike", "require_memory"]

FLOAT16_ABOVE = 4 * 2**30  # bytes of float32 rows; by size and not by what is free, so that every machine does the same


def memory_of(training: Sequence[SubjectEpochs], recipe: Recipe) -> tuple[int, torch.dtype]:
    """Return the bytes that several subjects take while they are read, and the type their rows are held in.

    These are the training rows of all; float32 rows and means of one, as read; means of the one validated on; and
    blocks of repetitions on their way (tests/train/cross_memory.py measures it).

    Parameters
    ----------
    training : sequence of SubjectEpochs
        Whom to train on.
    recipe : Recipe
        Which channels and times, and whether the rows are means or trials.
    """
    n_chans, window = len(pick_channels(training[0], recipe)[0]), pick_window(training[0], recipe)
    bytes_each = 4 * n_chans * (1 if window is None else len(window))
    n_rows = [_n_rows(one, recipe) for one in training]
    n_means = max(_n_rows(one, recipe.with_(train_on="mean")) for one in training)
    n_bytes = bytes_each * sum(n_rows)
    passing = bytes_each * (n_means + max(n_rows) + (n_means if recipe.train_on != "mean" else 0))
    passing += 4 * BLOCK_BYTES
    if n_bytes > FLOAT16_ABOVE:
        return n_bytes // 2 + passing, torch.float16
    return n_bytes + passing, torch.float32


def require_memory(n_bytes: int, n_processes: int = 1) -> None:
    """Refuse what this computer has no memory for; see `pipelines.memory.require`."""
    hint = "name fewer channels in a recipe of your own (channels = [...]), or train on means: --train-on mean"
    require(n_bytes, "the training subjects need", hint, n_processes)


def load_cross(
    tested: SubjectEpochs,
    training: Sequence[SubjectEpochs],
    validation: SubjectEpochs,
    recipe: Recipe,
    kind: type[nn.Module],
) -> Recordings:
    """Read what a run across subjects needs, one subject after the other.

    Parameters
    ----------
    tested, training, validation : SubjectEpochs
        Who does what: see `pipelines.train.company.Cast`.
    recipe : Recipe
        How they are loaded. All are divided by one number, from the training subjects.
    kind : type of Module
        Its fixed first step is applied while a subject is at hand.

    Returns
    -------
    Recordings
        ``mean`` is that of the validation subject, whose images come first; ``rows`` are of the training subjects, in
        float16 where they would take more than 4 GB; ``whose`` says which row is whose.

    Raises
    ------
    EmbedctlError
        If the subjects differ in channels or times, or there is too little memory.
    """
    require_memory(memory_of(training, recipe)[0])
    require_alike([tested, validation, *training], recipe)
    first = partial(prepare, kind)
    (_, dtype), n_rows = memory_of(training, recipe), sum(_n_rows(one, recipe) for one in training)
    held = load_training(validation, recipe.with_(train_on="mean"))
    image_ids, concepts = list(held.image_ids), list(held.concepts)
    at = {name: row for row, name in enumerate(image_ids)}
    rows: torch.Tensor | None = None
    shown: list[torch.Tensor] = []
    whose: list[torch.Tensor] = []
    unit, sums, n_done = 1.0, _Sums(), 0
    for number, subject in enumerate(training):
        one = load_training(subject, recipe)
        for name, concept in zip(one.image_ids, one.concepts, strict=True):
            if name not in at:
                at[name] = len(image_ids)
                image_ids.append(name)
                concepts.append(concept)
        unit = unit if number else one.scale  # halves hold no volts: the first subject's scale keeps them near one
        for part in one.rows.split(512):  # a copy of all at once would be one more subject in memory
            sums.add(part.mul_(one.scale / unit))
            ready = first(part)
            if rows is None:
                rows = torch.empty((n_rows, *ready.shape[1:]), dtype=dtype)
            rows[n_done : n_done + len(ready)] = ready
            n_done += len(ready)
        shown.append(torch.tensor([at[one.image_ids[image]] for image in one.shown.tolist()]))
        whose.append(torch.full((len(one.rows),), number))
        del one, part, ready
    assert rows is not None
    spread = sums.spread if recipe.unit_scale else 1.0
    rows /= spread or 1.0
    scale = unit * (spread or 1.0)
    test, notes = load_test(tested, recipe, scale)
    return Recordings(
        image_ids=image_ids,
        concepts=concepts,
        mean=first(held.mean.mul_(held.scale / scale)),
        rows=rows,
        shown=torch.cat(shown),
        n_times=held.n_times,
        ch_names=held.ch_names,
        test=test.changed(first),
        scale=scale,
        notes=held.notes + notes,
        whose=torch.cat(whose),
        is_prepared=True,
    )


class _Sums:
    """Of all numbers that were added: how many, their sum and that of their squares."""

    def __init__(self) -> None:
        self._n, self._total, self._squares = 0, 0.0, 0.0

    def add(self, x: torch.Tensor) -> None:
        """Add numbers; they are copied in float64."""
        self._n += x.numel()
        self._total += x.sum(dtype=torch.float64).item()
        self._squares += torch.linalg.vector_norm(x, dtype=torch.float64).item() ** 2

    @property
    def spread(self) -> float:
        """Standard deviation of all."""
        return float((self._squares / self._n - (self._total / self._n) ** 2) ** 0.5)


def _n_rows(subject: SubjectEpochs, recipe: Recipe) -> int:
    valid = np.asarray(subject.train.valid)
    return int(valid.any(axis=1).sum() if recipe.train_on == "mean" else valid.sum())


def require_alike(subjects: Sequence[SubjectEpochs], recipe: Recipe) -> None:
    """Make sure that the same channels, in the same order, and the same moments of all subjects are read.

    Raises
    ------
    EmbedctlError
        Naming a subject that differs from the first.
    """
    names, moments = _read_of(subjects[0], recipe)
    for one in subjects[1:]:
        its_names, its_moments = _read_of(one, recipe)
        if its_names != names:
            raise EmbedctlError(
                f"of subject {one.subject} other channels are read than of subject {subjects[0].subject}: "
                f"{_some(its_names)}, not {_some(names)}",
                "name channels that all subjects have in a recipe of your own (channels = [...])",
            )
        if its_moments.shape != moments.shape or not np.allclose(its_moments, moments, atol=1e-6):
            raise EmbedctlError(
                f"of subject {one.subject} other moments are read than of subject {subjects[0].subject}",
                "preprocess both in the same way, or choose a window that fits all",
            )


def _read_of(subject: SubjectEpochs, recipe: Recipe) -> tuple[list[str], np.ndarray]:
    window = pick_window(subject, recipe)
    return pick_channels(subject, recipe)[1], np.zeros(0) if window is None else np.asarray(subject.times)[window]


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
