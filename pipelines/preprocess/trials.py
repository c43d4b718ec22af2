"""Trials that others have cut, epochs ``(channel, time)`` or betas ``(voxel,)``, before anything is done with them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.preprocess.dataset import SPLITS, Preflight, Problem
from pipelines.preprocess.trial_recipes import TrialRecipe
from stores.names import counted

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TrialFlight", "concept_of", "count_trials", "inside"]


@dataclass(kw_only=True)
class TrialFlight(Preflight):
    """A subject whose trials are cut already, in the order in which they were seen.

    Parameters
    ----------
    images, concepts, splits : list of str
        Of each trial; a split is ``train`` or ``test``.
    sessions : (n_trials,) of int
        Session of each trial.
    row_shape : tuple of int
        ``(n_chans, n_times)``, or ``(n_voxels,)``.
    read : callable
        From trial numbers, sorted and each once, to ``(n, *row_shape)`` float32 in ``units``.
    modality, units : str
        ``eeg``, ``meg`` or ``fmri``, and what a value is in.
    ch_names, ch_pos, times, sfreq
        What the axes are; ``times`` in s, positions in m. Voxels have none.
    sources : list of dict
        What identifies the files.
    columns : dict
        Further columns of the trial table, one value per trial.
    places : dict
        Where in the files each trial is, as columns of the trial table: it is no part of what the trials mean.
    order : tuple of str
        The columns of the trial table that say in which order trials were seen.
    time_offset_ms : float
        The value at ``t`` is the signal at ``t`` plus this.
    left_out : list of pyarrow.Table
        Trials that are not used, row by row: see `pipelines.preprocess.left_out`.
    dropped : dict
        Trials that are not used, and why: catch trials, targets.
    arrays : dict
        Small arrays to keep, such as which voxels these are.
    rois : dict of str to list of int
        Regions of interest: places of their voxels.
    packages : tuple of str
        Whose versions matter.
    """

    images: list[str] = field(default_factory=list)
    concepts: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    sessions: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    row_shape: tuple[int, ...] = ()
    read: Callable[[np.ndarray], np.ndarray] = lambda rows: np.zeros((0,))
    modality: str = "eeg"
    units: str = ""
    ch_names: list[str] = field(default_factory=list)
    ch_pos: list[list[float] | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    sfreq: float = 0.0
    sources: list[dict[str, Any]] = field(default_factory=list)
    columns: dict[str, Any] = field(default_factory=dict)
    places: dict[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ("presentation_index",)
    left_out: "list[pa.Table]" = field(default_factory=list)
    time_offset_ms: float = 0.0
    dropped: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    rois: dict[str, list[int]] = field(default_factory=dict)
    packages: tuple[str, ...] = ("embedctl", "numpy")


def count_trials(flight: TrialFlight, recipe: TrialRecipe, where: str) -> None:
    """Count trials, images and repetitions of each split, and add what a recipe or a training needs and is not there.

    Parameters
    ----------
    flight : TrialFlight
        Its ``problems`` and ``counts`` are added to.
    recipe : TrialRecipe
        What it is to become.
    where : str
        The file that says which trial showed what, for the problems.
    """
    splits = np.array(flight.splits)
    images = np.array(flight.images)
    kept = flight.sessions <= recipe.sessions if recipe.sessions else np.ones(len(splits), bool)
    for split in SPLITS:
        shown, repetitions = np.unique(images[(splits == split) & kept], return_counts=True)
        flight.counts[split] = {
            "trials": int(repetitions.sum()),
            "images": len(shown),
            "fewest repetitions": int(repetitions.min(initial=repetitions.max(initial=0))),
            "most repetitions": int(repetitions.max(initial=0)),
        }
        if not len(shown):
            flight.problems.append(
                Problem(where, "split", f"no {split} trial in it", "a subject needs both splits: leave it out")
            )
    if recipe.scale != "none" and recipe.fit == "train" and len(splits):
        for session in np.setdiff1d(flight.sessions[kept], flight.sessions[kept & (splits == "train")]).tolist():
            what = f"session {session} has no training trial to fit its scaling on"
            fix = 'leave this session out of the table, or use a recipe with scale = "none"'
            flight.problems.append(Problem(where, "session", what, fix))
    both = np.intersect1d(images[(splits == "train") & kept], images[(splits == "test") & kept])
    if len(both):
        what = f"{counted(len(both), 'image is', 'images are')} in both train and test, such as {both[0]}"
        flight.problems.append(Problem(where, "split", what, "a test image must never be trained on"))
    for name in recipe.channels:
        if name not in flight.ch_names:
            what = f"recipe {recipe.name} asks for channel {name}, which is not there"
            flight.problems.append(Problem(where, "ch_names", what, "use --recipe clean, which takes those there are"))
    if recipe.window and not inside(flight.times, recipe.window).any():
        have = f"{flight.times[0]:g} to {flight.times[-1]:g} s" if flight.times else "no times"
        what = f"recipe {recipe.name} keeps {recipe.window[0]:g} to {recipe.window[1]:g} s, the epochs have {have}"
        flight.problems.append(Problem(where, "times", what, "name another window in a recipe of your own"))


def inside(times: list[float], window: tuple[float, ...]) -> np.ndarray:
    """Return which times lie in a window, both ends included."""
    at = np.array(times)
    return (at >= window[0] - 1e-6) & (at <= window[1] + 1e-6)


def concept_of(image: str) -> str:
    """Return the concept of an image as its path tells it: THINGS names its files so, others its folder; else empty.

    Examples
    --------
    >>> concept_of("images_test_meg/wig_13s.jpg"), concept_of("training_images/00003_ant/7.png"), concept_of("7.png")
    ('wig', 'ant', '')
    """
    path = PurePosixPath(image)
    named = re.fullmatch(r"(.+)_\d\d[a-z]", path.stem)
    return named[1] if named else re.sub(r"^\d+_", "", path.parent.name)
