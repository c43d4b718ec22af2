"""The first pass over a subject's recordings: what cannot be used, and the whitening of each session."""

from dataclasses import dataclass, field
from threading import Lock

import numpy as np

from pipelines.cores import in_order, n_threads
from pipelines.preprocess.cutting import first_broken, good_channels, lost_samples, n_extreme
from pipelines.preprocess.dataset import SPLITS, Examined
from pipelines.preprocess.recording import Recording
from pipelines.preprocess.subject import SubjectPlan
from pipelines.preprocess.whitening import CovarianceSum, inverse_square_root
from pipelines.progress import Progress
from stores.errors import BadRecording
from stores.names import subject_name

__all__ = ["Examination", "examine"]

_FILLED = 100  # epochs per recording whose bad channels are filled in for the covariance; in the rest they are left out
_COPIES = 4  # of a batch of epochs while its covariances are computed
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
    at_once = n_threads(plan.cutter.batch_bytes + _TOGETHER * plan.cutter.epoch_bytes * _COPIES)
    made = in_order(lambda session: _examine_session(plan, session, together), plan.sessions, at_once)
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
        good[split], said = _examine_recording(plan, session, split, totals.get(split), progress)
        notes += [f"{where}: {note}" for note in said]
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
    estimated = {split: total for split, total in totals.items() if total.is_estimated}
    if plan.recipe.mvnn == "time":
        notes += _never_repeated(where, [split for split in totals if split not in estimated], bool(estimated))
    whitener, rank = _whitener(plan, session, [total.mean() for total in estimated.values()], dead)
    alive = len(dead) - int(dead.sum())
    if plan.recipe.mvnn != "none" and rank < alive:
        notes.append(f"{where}: the covariance of {alive} channels has rank {rank}: what is missing stays zero")
    return usable, whitener, {**counts, "dead channels": int(dead.sum())}, notes


def _never_repeated(where: str, splits: list[str], is_estimated: bool) -> list[str]:
    """Return what is to be said of splits whose repetitions tell nothing of the noise, or raise if none does."""
    if not is_estimated:
        raise BadRecording(
            f"{where}: no image was seen twice in usable epochs, and the recipe whitens by what differs between two",
            'use mvnn = "epochs" in a recipe of your own, or move this session\'s folder away',
        )
    return [f"{where}: no {split} image was seen twice: the whitening is that of the others" for split in splits]


def _examine_recording(
    plan: SubjectPlan, session: int, split: str, total: CovarianceSum | None, progress: _Together
) -> tuple[np.ndarray, list[str]]:
    """Return the usable channels of every kept epoch of a recording, and what is to be said of it.

    Their covariance is added to ``total``, unless it is that over repetitions, which is taken later.
    """
    recording, shown = plan.flight.recordings[session, split], plan.events[session, split]
    used = plan.used(session, split)
    onsets, codes = shown.onsets[used], shown.codes[used]
    _, image, times = np.unique(codes, return_inverse=True, return_counts=True)
    weights = 1 / (times[image] * len(times))  # every image counts the same, however often it was shown
    good = np.ones((len(used), len(plan.cutter.channels)), bool)
    excluding = plan.recipe.bad_channels == "exclude"
    spoilt: list[tuple[np.ndarray, float, np.ndarray]] = []
    extreme, broken = 0, ""
    is_later = plan.recipe.mvnn == "time" and total is not None
    if plan.recipe.mvnn != "epochs":
        total = None
    if not excluding and total is None:  # nothing is computed from them here, so only the samples are looked at
        _refuse_broken(plan, recording, onsets[times[image] == 1] if is_later else onsets)
        progress.advance(len(used))
        return good, []
    for part, epochs in plan.cutter.batches(recording, onsets):
        if excluding:
            good[part] = good_channels(epochs)
            extreme += n_extreme(epochs, plan.recipe.units) if plan.flight.modality == "eeg" else 0
            if not broken and not np.isfinite(epochs).all():
                broken = _first_broken(plan, recording, onsets[part])
        elif not np.isfinite(epochs).all():
            _refuse_broken(plan, recording, onsets[part])
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
    notes = [f"{extreme} of {len(good)} {split} epochs span more than 1 mV: artefacts, kept"] if extreme else []
    return good, notes + ([f"{broken} of {split} is the first sample that is not a finite number"] if broken else [])


def _first_broken(plan: SubjectPlan, recording: Recording, onsets: np.ndarray) -> str:
    """Return channel and time of the first sample of some epochs that is not finite; empty if all are."""
    first, n = plan.cutter.matrix.first, plan.cutter.matrix.n_samples
    for onset in onsets.tolist():
        where = first_broken(recording, plan.cutter.channels, onset + first, onset + first + n)
        if where:
            return f"channel {where[0]} at {where[1]:.3f} s"
    return ""


def _refuse_broken(plan: SubjectPlan, recording: Recording, onsets: np.ndarray) -> None:
    """Raise `BadRecording` that says where a sample of some epochs is not finite, if one is."""
    place = _first_broken(plan, recording, onsets)
    if place:
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
            if plan.recipe.bad_channels == "keep" and not np.isfinite(epochs).all():
                _refuse_broken(plan, recording, onsets)
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
    rest, good = epochs[~complete], good[~complete]
    total.add_filled(rest, weights[~complete], good, lost_samples(rest, good))


def _whitener(
    plan: SubjectPlan, session: int, covariances: list[np.ndarray], dead: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return the whitening matrix from the covariances of one or both splits, and its rank."""
    if plan.recipe.mvnn == "none":
        return np.diag(np.where(dead, 0.0, 1.0)), int((~dead).sum())
    covariance = np.mean(covariances, axis=0) if covariances else np.zeros((len(dead), len(dead)))
    covariance[dead] = covariance[:, dead] = 0
    whitener, rank = inverse_square_root(covariance)
    if rank == 0:
        where = f"{subject_name(plan.flight.subject)}/ses-{session:02d}"
        raise BadRecording(
            f"{where} has no usable training epochs to fit the whitening on",
            "move this session's folder away to go on without it",
        )
    return whitener, rank
