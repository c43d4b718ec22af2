"""One subject's recordings in memory, as the recipe wants them: channels, window, normalisation.

They are read once per subject and shared by all its runs; there is no data loader. What belongs to the test set is kept
apart in `Test`, which training never opens, and is read only where somebody asks for it.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import nn

from pipelines.train.brain_encoders import prepare
from pipelines.train.recipes import Recipe
from pipelines.train.repetitions import Pick, fewer, means, split_half, trials
from stores.epochs import SubjectEpochs
from stores.errors import EmbedctlError
from stores.names import counted

__all__ = [
    "Recordings",
    "Test",
    "Training",
    "load_subject",
    "load_test",
    "load_training",
    "pick_channels",
    "pick_window",
]


@dataclass(frozen=True, slots=True)
class Test:
    """The test recordings and their gallery: scored once per run, after training.

    They are loaded with the rest, and their reliability is computed then; nothing of it reaches training.

    Parameters
    ----------
    epochs : (n_queries, n_chans, n_times)
        Mean over the repetitions of each image.
    target : (n_queries,)
        Gallery row of the image each query shows.
    image_ids, concepts : list of str
        The gallery: all test images, also one whose recordings were all lost.
    noise_ceiling : float or None
        See `split_half`.
    fewer : dict of int to (n_queries, n_chans, n_times)
        Means over fewer repetitions; see `pipelines.train.repetitions.fewer`.
    """

    epochs: torch.Tensor
    target: np.ndarray
    image_ids: list[str]
    concepts: list[str]
    noise_ceiling: float | None
    fewer: dict[int, torch.Tensor] = field(default_factory=dict)

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Test":
        """Return the same with all recordings changed."""
        fewer = {n: change(epochs) for n, epochs in self.fewer.items()}
        return dataclasses.replace(self, epochs=change(self.epochs), fewer=fewer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What there is to learn from.

    Parameters
    ----------
    image_ids, concepts : list of str
        The training images that have recordings.
    mean : (n_images, n_chans, n_times)
        Mean over the repetitions of each training image.
    rows : (n_rows, n_chans, n_times)
        What is trained on: the means, or the single trials, of which some may be averaged in every pass.
    shown : (n_rows,)
        Training image that each row shows.
    n_times : int
        Samples per epoch, before a brain encoder's fixed first step.
    ch_names : list of str
        The channels in use.
    scale : float
        What all recordings were divided by.
    notes : list of str
        What was chosen or left out, a line each.
    """

    image_ids: list[str]
    concepts: list[str]
    mean: torch.Tensor
    rows: torch.Tensor
    shown: torch.Tensor
    n_times: int
    ch_names: list[str]
    scale: float = 1.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings(Training):
    """What a run reads: what it learns from, and what it is tested with.

    Parameters
    ----------
    test : Test
        The test set.
    whose : (n_rows,), optional
        Which subject each row is of, where there are several. ``mean`` is then of one who is not among them, and of the
        first images alone (`pipelines.train.cross`).
    is_prepared : bool
        Whether a brain encoder's fixed first step is done.
    """

    test: Test
    whose: torch.Tensor | None = None
    is_prepared: bool = False

    def ready(self, kind: type[nn.Module], device: str) -> "Recordings":
        """Return the same recordings on a device, after a brain encoder's fixed first step."""
        first = torch.Tensor.contiguous if self.is_prepared else partial(prepare, kind)
        mean = first(self.mean).to(device)
        return dataclasses.replace(
            self,
            mean=mean,
            rows=mean if self.rows is self.mean else first(self.rows).to(device),
            shown=self.shown.to(device),
            whose=None if self.whose is None else self.whose.to(device),
            test=self.test.changed(lambda epochs: first(epochs).to(device)),
        )


def load_subject(epochs: SubjectEpochs, recipe: Recipe) -> Recordings:
    """Read one subject from the epoch store, once, as a recipe wants it, and the test set with it.

    Parameters
    ----------
    epochs : SubjectEpochs
        The subject in the epoch store.
    recipe : Recipe
        Channels, window, normalisation, and whether to train on means or trials.

    Returns
    -------
    Recordings
        Float32 tensors on the CPU.

    Raises
    ------
    BadRecording
        If a repetition that is marked valid holds a number that is not finite.
    EmbedctlError
        If the window does not fit the epochs, or the recipe needs repetitions and the store holds means alone.
    """
    training = load_training(epochs, recipe)
    test, notes = load_test(epochs, recipe, training.scale)
    about = {f.name: getattr(training, f.name) for f in dataclasses.fields(training)}
    return Recordings(**about | {"notes": training.notes + notes}, test=test)


def load_training(epochs: SubjectEpochs, recipe: Recipe) -> Training:
    """Read what a subject has to learn from, and nothing of the test set; raises as `load_subject`."""
    pick, ch_names, notes = _picked(epochs, recipe)
    mean, kept = means(epochs.train, recipe.trial_norm, pick)
    notes += _lost(len(epochs.train.image_ids) - len(kept), "training")
    image_ids = [epochs.train.image_ids[i] for i in kept]
    rows, shown = mean, np.arange(len(mean))
    if recipe.train_on != "mean":
        if recipe.n_random and recipe.trial_norm == "mean-then-norm":
            raise EmbedctlError(
                f"train_on = '{recipe.train_on}' averages what is normalised already",
                'use trial_norm = "norm-then-mean"',
            )
        rows, shown = trials(epochs.train, recipe.trial_norm, pick)
        position = np.full(len(epochs.train.image_ids), -1)
        position[kept] = np.arange(len(kept))
        shown = position[shown]
    # One number, from the training images, those held out among them; the test set moves nothing.
    scale = np.float32(_spread(rows) or 1.0) if recipe.unit_scale else np.float32(1)
    for epochs_of in {id(x): x for x in (mean, rows)}.values():
        epochs_of /= scale  # in place: trials of a subject can be gigabytes
    mean_tensor = torch.from_numpy(mean)
    return Training(
        image_ids=image_ids,
        concepts=[epochs.train.concepts[i] for i in kept],
        mean=mean_tensor,
        rows=mean_tensor if rows is mean else torch.from_numpy(rows),
        shown=torch.from_numpy(shown),
        n_times=mean.shape[-1],
        ch_names=ch_names,
        scale=float(scale),
        notes=notes,
    )


def load_test(epochs: SubjectEpochs, recipe: Recipe, scale: float) -> tuple[Test, list[str]]:
    """Read a subject's test set, divided by ``scale``, and notes on what it lacks; raises as `load_subject`."""
    pick, _, _ = _picked(epochs, recipe)
    mean, seen = means(epochs.test, recipe.trial_norm, pick)
    test = Test(
        torch.from_numpy(mean),
        seen,
        list(epochs.test.image_ids),
        list(epochs.test.concepts),
        split_half(epochs.test, pick),
        {n: torch.from_numpy(few) for n, few in fewer(epochs.test, recipe.trial_norm, pick).items()},
    ).changed(lambda recordings: recordings / scale)
    return test, _lost(len(epochs.test.image_ids) - len(seen), "test")


def _picked(epochs: SubjectEpochs, recipe: Recipe) -> tuple[Pick, list[str], list[str]]:
    chans, ch_names, note = pick_channels(epochs, recipe)
    return (chans, pick_window(epochs, recipe)), ch_names, [note] if note else []


def pick_channels(epochs: SubjectEpochs, recipe: Recipe) -> tuple[np.ndarray, list[str], str]:
    """Return the channels of the recipe that exist, their names, and a note when some or all do not.

    Where none of them exists all channels are taken: other caps and sensors have other names.
    """
    names = list(epochs.ch_names) or [f"voxel {i}" for i in range(epochs.train.mean_shape[1])]
    found = np.array([names.index(name) for name in recipe.channels if name in names], dtype=np.int64)
    note = ""
    if len(found) < len(recipe.channels):
        note = f"{len(found)} of the recipe's {len(recipe.channels)} channels exist here and are used"
    if not len(found):
        found = np.arange(len(names))
        note = note and f"none of the recipe's {len(recipe.channels)} channels exist here: all {len(names)} are used"
    return found, [names[c] for c in found], note


def pick_window(epochs: SubjectEpochs, recipe: Recipe) -> np.ndarray | None:
    """Return the samples inside the recipe's window, both ends included; None for voxels, which have no time.

    Raises
    ------
    EmbedctlError
        If the window leaves the epochs, or there is no sample in it, or voxels are to be normalised over time.
    """
    times = np.asarray(epochs.times, dtype=np.float64)
    if not len(times):
        if recipe.trial_norm != "none":  # each voxel's only number would become zero
            raise EmbedctlError(f"trial_norm = '{recipe.trial_norm}' needs a time course", 'use trial_norm = "none"')
        return None
    if not recipe.window:
        return np.arange(len(times))
    first, last = recipe.window
    # A sample stands for the time until the next one: a window of one second fits 100 samples at 100 Hz.
    sample = 1 / epochs.sfreq if epochs.sfreq else 0.0
    if first < times[0] - sample - 1e-9 or last > times[-1] + sample + 1e-9:
        raise EmbedctlError(
            f"the window from {first:g} to {last:g} s leaves the epochs: they last {times[0]:g} to {times[-1]:g} s",
            "choose another window in the recipe; window = [] takes all of them",
        )
    # Half a sample of slack: stored times are multiples of 1 / sfreq only up to rounding.
    inside = np.flatnonzero((times >= first - sample / 2) & (times < last + sample / 2))
    if not len(inside):
        raise EmbedctlError(
            f"no sample lies between {first:g} and {last:g} s: there is one every {sample:g} s",
            "choose a longer window in the recipe",
        )
    return inside


def _spread(x: np.ndarray) -> float:
    """Return the standard deviation over everything, a few rows in float64 at a time."""
    parts = [x[start : start + 512] for start in range(0, len(x), 512)]
    mean = sum(part.sum(dtype=np.float64) for part in parts) / x.size
    return float((sum(((part - mean) ** 2).sum(dtype=np.float64) for part in parts) / x.size) ** 0.5)


def _lost(n_lost: int, what: str) -> list[str]:
    return [f"left out: {counted(n_lost, f'{what} image')} without a valid recording"] if n_lost > 0 else []
