"""The first pass over a subject's recordings: what cannot be used, and the whitening of each session."""

from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from pipelines.cores import in_order, n_cores
from pipelines.preprocess.cutting import first_broken, good_channels, n_extreme
from pipelines.preprocess.dataset import SPLITS, Examined
from pipelines.preprocess.recording import Recording
from pipelines.preprocess.subject import SubjectPlan
from pipelines.preprocess.whitening import CovarianceSum, inverse_square_root
from pipelines.progress import Progress
from stores.errors import BadRecording
from stores.names import subject_name

__all__ = ["Examination", "examine"]

_FILLED = 100  # epochs per recording whose bad channels are filled in for the covariance; in the rest they are left out
_TOGETHER = 128  # epochs whose covariance over repetitions is computed at once
_DEAD = 0.5  # a channel unusable in more than half of a session's training epochs is left out of that session


@dataclass
class Examination(Examined):
    """What the first pass found.

    Parameters
    ----------
    whiteners : dict of session to (n_chans, n_chans)
        Whitening matrix, identity if the recipe does not whiten.
    good : dict of (session, split) to (n_presentations,) of bool
        Whether every channel that lives in this session is usable in this presentation.
    """

    whiteners: dict[int, np.ndarray] = field(default_factory=dict)
    good: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)


def examine(plan: SubjectPlan, progress: Progress) -> Examination:
    """Read every kept epoch once: find unusable channels, and fit each session's whitener.

    Raises
    ------
    BadRecording
        If a session has no usable training epochs, or, in a recipe that keeps bad channels, if
        a sample is not finite.
    """
    found = Examination(counts={"unusable channel-epochs": 0, "repetitions lost to them": 0, "dead channels": 0})
    together = _Together(progress)
    made = in_order(lambda session: _examine_session(plan, session, together), plan.sessions, n_cores())
    for session, (good, whitener, counts, notes) in zip(plan.sessions, made, strict=True):
        found.good |= good
        found.whiteners[session] = whitener
        found.notes += notes
        for why, n in counts.items():
            found.counts[why] += n
    return found


class _Together:
    """Counts steps from several threads."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._lock = progress, Lock()

    def advance(self, n: int) -> None:
        with self._lock:
            self._progress.advance(n)


def _examine_session(
    plan: SubjectPlan, session: int, progress: _Together
) -> tuple[dict[tuple[int, str], np.ndarray], np.ndarray, dict[str, int], list[str]]:
    """Return the usable presentations of a session, its whitening matrix, what was lost, and notes."""
    splits = [split for split in SPLITS if (session, split) in plan.events]
    where = f"{subject_name(plan.flight.subject)}/ses-{session:02d}"
    fit = SPLITS if plan.recipe.fit == "all" else ("train",)
    totals = {split: CovarianceSum(len(plan.cutter.channels)) for split in splits if split in fit}
    good, notes, counts = {}, [], {"unusable channel-epochs": 0, "repetitions lost to them": 0}
    for split in splits:
        in_passing = totals.get(split) if plan.recipe.mvnn == "epochs" else None
        good[split], n = _examine_recording(plan, session, split, in_passing, progress)
        if n:
            notes.append(f"{where}: {n} of {len(good[split])} {split} epochs span more than 1 mV: artefacts, kept")
    # The test recording has no say: it must not shape what the training epochs become.
    nothing = np.zeros(len(plan.cutter.channels), bool)
    dead, in_test = (_dead(good[split]) if split in good else nothing for split in SPLITS)
    if dead.any():
        notes.append(f"{where}: {', '.join(_names(plan, dead))} flat or broken in most epochs: zero in this session")
    if (in_test & ~dead).any():
        what = "flat or broken in most test epochs alone: those epochs are left out"
        notes.append(f"{where}: {', '.join(_names(plan, in_test & ~dead))} {what}")
    usable = {}
    for split, mask in good.items():
        whole = (mask | dead).all(axis=1)
        usable[session, split] = np.zeros(len(plan.events[session, split].codes), bool)
        usable[session, split][plan.used(session, split)] = whole
        counts["unusable channel-epochs"] += int((~mask).sum())
        counts["repetitions lost to them"] += len(mask) - int(whole.sum())
        if plan.recipe.mvnn == "time" and split in totals:
            _add_repetitions(plan, session, split, totals[split], whole, dead)
    whitener = _whitener(plan, session, [total.mean() for total in totals.values()], dead)
    return usable, whitener, {**counts, "dead channels": int(dead.sum())}, notes


def _examine_recording(
    plan: SubjectPlan, session: int, split: str, total: CovarianceSum | None, progress: _Together
) -> tuple[np.ndarray, int]:
    """Return the usable channels of every kept epoch of a recording, and how many span more than a millivolt.

    Their covariance is added to ``total``.
    """
    recording, shown = plan.flight.recordings[session, split], plan.events[session, split]
    used = plan.used(session, split)
    onsets, codes = shown.onsets[used], shown.codes[used]
    _, image, times = np.unique(codes, return_inverse=True, return_counts=True)
    weights = 1 / (times[image] * len(times))  # every image counts the same, however often it was shown
    good = np.ones((len(used), len(plan.cutter.channels)), bool)
    excluding = plan.recipe.bad_channels == "exclude"
    spoilt: list[tuple[np.ndarray, float, np.ndarray]] = []
    extreme = 0
    if not excluding and total is None:
        progress.advance(len(used))
        return good, 0
    for part, epochs in plan.cutter.batches(recording, onsets):
        if excluding:
            good[part] = good_channels(epochs)
            extreme += n_extreme(epochs, plan.recipe.units) if plan.flight.modality == "eeg" else 0
        else:
            _refuse_broken(plan, recording, onsets[part], epochs)
        if total is not None and excluding:
            aside = np.flatnonzero(~good[part].all(axis=1))[: _FILLED - len(spoilt)]
            spoilt += [(epochs[i].copy(), weights[part][i], good[part][i]) for i in aside]
            rest = np.setdiff1d(np.arange(len(epochs)), aside)
            total.add(epochs[rest], weights[part][rest], good[part][rest])
        elif total is not None:
            total.add(epochs, weights[part])
        progress.advance(len(epochs))
    if total is not None and spoilt:
        _add_spoilt(total, spoilt, _dead(good))
    return good, extreme


def _refuse_broken(plan: SubjectPlan, recording: Recording, onsets: np.ndarray, epochs: np.ndarray) -> None:
    """Raise `BadRecording` that says where a sample is not finite, if one is."""
    if np.isfinite(epochs).all():
        return
    low, high = plan.cutter.matrix.required
    where = first_broken(recording, plan.cutter.channels, int(onsets.min()) + low, int(onsets.max()) + high + 1)
    place = f"channel {where[0]} at {where[1]:.3f} s" if where else "an epoch"
    raise BadRecording(
        f"{recording.path}: {place} is not a finite number",
        f"recipe {plan.recipe.name} has no answer to that: use --recipe clean, which leaves such epochs out",
    )


def _add_repetitions(
    plan: SubjectPlan, session: int, split: str, total: CovarianceSum, whole: np.ndarray, dead: np.ndarray
) -> None:
    """Add the covariance over the usable repetitions of every image of a recording that has two of them."""
    recording, shown = plan.flight.recordings[session, split], plan.events[session, split]
    used = plan.used(session, split)[whole]
    order = used[np.argsort(shown.codes[used], kind="stable")]
    _, starts, times = np.unique(shown.codes[order], return_index=True, return_counts=True)
    for n in np.unique(times[times > 1]).tolist():
        rows = order[starts[times == n][:, None] + np.arange(n)]
        step = max(1, _TOGETHER // n)
        for first in range(0, len(rows), step):
            onsets = shown.onsets[rows[first : first + step].ravel()]
            epochs = plan.cutter.epochs(recording, onsets)
            if plan.recipe.bad_channels == "keep":
                _refuse_broken(plan, recording, onsets, epochs)
            if dead.any():
                epochs[:, dead] = 0  # a dead channel may be NaN
            total.add_repetitions(epochs.reshape(-1, n, *epochs.shape[1:]))


def _dead(good: np.ndarray) -> np.ndarray:
    """Return which channels are unusable in most of some epochs, ``(n_chans,)`` of bool."""
    return (~good).sum(axis=0) > _DEAD * len(good)


def _names(plan: SubjectPlan, mask: np.ndarray) -> list[str]:
    return [name for name, chosen in zip(plan.cutter.channels, mask, strict=True) if chosen]


def _add_spoilt(total: CovarianceSum, spoilt: list[tuple[np.ndarray, float, np.ndarray]], dead: np.ndarray) -> None:
    """Add epochs that lack channels: filled in, unless all they lack is dead throughout."""
    epochs, weights, good = (np.array(column) for column in zip(*spoilt, strict=True))
    complete = (good | dead).all(axis=1)
    total.add(epochs[complete], weights[complete], good[complete])
    total.add_filled(epochs[~complete], weights[~complete], good[~complete])


def _whitener(plan: SubjectPlan, session: int, covariances: list[np.ndarray], dead: np.ndarray) -> np.ndarray:
    """Return the whitening matrix from the covariances of one or both splits."""
    if plan.recipe.mvnn == "none":
        return np.diag(np.where(dead, 0.0, 1.0))
    covariance = np.mean(covariances, axis=0)
    covariance[dead] = covariance[:, dead] = 0
    whitener, rank = inverse_square_root(covariance)
    if rank == 0:
        where = f"{subject_name(plan.flight.subject)}/ses-{session:02d}"
        raise BadRecording(
            f"{where} has no usable training epochs to fit the whitening on",
            "move this session's folder away to go on without it",
        )
    return whitener
