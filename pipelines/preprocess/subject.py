"""One subject from mapped recordings to whitened epochs in image order, a block at a time.

Two passes, neither of which holds more than a few hundred epochs. The first examines: it finds
unusable channels and adds up the covariance of each session. The second goes through the *images*: it
cuts their epochs again, from all sessions, whitens and writes them. Cutting twice is
cheaper than parking 5 GB of epochs on disk in between, and leaves nothing to clean up after a crash.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.preprocess.cutting import Cutter, first_broken, good_channels, n_extreme
from pipelines.preprocess.dataset import SPLITS, Examined
from pipelines.preprocess.recipes import Recipe
from pipelines.preprocess.recording import ImageList, RecordedFlight
from pipelines.preprocess.slots import Presentations, Slots, assign
from pipelines.preprocess.whitening import CovarianceSum, inverse_square_root
from pipelines.progress import Progress
from stores.errors import BadRecording
from stores.names import subject_name

__all__ = ["Examination", "SubjectPlan", "block_of_epochs", "examine", "plan_subject", "trials_table"]

_FILLED = 100  # epochs per recording whose bad channels are filled in for the covariance; in the rest they are left out
_DEAD = 0.5  # a channel unusable in more than half of a session's training epochs is left out of that session


@dataclass
class SubjectPlan:
    """What becomes of every presentation of a subject.

    Parameters
    ----------
    flight : RecordedFlight
        Recordings and events.
    recipe : Recipe
        What to do with them.
    cutter : Cutter
        Cuts epochs.
    events : dict
        Presentations with room for a whole epoch, by ``(session, split)``.
    slots : dict
        Where they go, by split.
    counts : dict
        What was dropped, and why.
    notes : list of str
        Sessions that hold fewer repetitions than the recipe draws.
    """

    flight: RecordedFlight
    recipe: Recipe
    cutter: Cutter
    events: dict[tuple[int, str], Presentations]
    slots: dict[str, Slots]
    counts: dict[str, int]
    notes: list[str]

    @property
    def sessions(self) -> list[int]:
        """Numbers of the sessions there are."""
        return sorted({session for session, _ in self.events})

    def used(self, session: int, split: str) -> np.ndarray:
        """Return which presentations of a session are kept, in order of time, ``(n,)`` of int."""
        slots = self.slots[split]
        return np.sort(slots.presentation[slots.session == session])


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


def plan_subject(flight: RecordedFlight, recipe: Recipe) -> SubjectPlan:
    """Decide, from events alone, which presentation becomes which repetition of which image.

    Raises
    ------
    BadRecording
        If no image of a split can be used, or a session that is to be whitened has no training recording.
    """
    cutter = Cutter.of(recipe, next(iter(flight.recordings.values())))
    events = {}
    notes = []
    counts = dict.fromkeys(("targets dropped", "past the end of the file", "repetitions left out"), 0)
    for key, shown in flight.events.items():
        fits = cutter.fits(flight.recordings[key], shown.onsets)
        events[key] = shown.select(fits)
        counts["past the end of the file"] += int((~fits).sum())
        session, split = key
        counts["targets dropped"] += flight.counts[f"ses-{session:02d} {split}"].get("targets dropped", 0)
        wanted, fewest = recipe.repetitions.get(split, 0), _fewest(events[key])
        if fewest < wanted:
            where = f"{subject_name(flight.subject)}/ses-{session:02d}"
            notes.append(
                f"{where}: recipe {recipe.name} draws {wanted} {split} repetitions of an image, some have {fewest}"
            )
        if recipe.mvnn != "none" and (session, "train") not in flight.events:
            raise BadRecording(
                f"{subject_name(flight.subject)}/ses-{session:02d} has no training recording to fit its whitening on",
                "find that recording, or move the session's folder away to go on without it",
            )
    slots = {}
    for split in SPLITS:
        of_split = {session: shown for (session, which), shown in events.items() if which == split}
        slots[split] = assign(of_split, recipe.repetitions.get(split), recipe.seed)
        counts["repetitions left out"] += slots[split].surplus
        if not len(slots[split].codes):
            raise BadRecording(
                f"{subject_name(flight.subject)}: no {split} image has a whole epoch",
                "check the length of the recordings",
            )
    return SubjectPlan(flight, recipe, cutter, events, slots, counts, notes)


def _fewest(shown: Presentations) -> int:
    """Return how often the image shown least often was shown."""
    return int(np.unique(shown.codes, return_counts=True)[1].min(initial=2**31))


def examine(plan: SubjectPlan, progress: Progress) -> Examination:
    """Read every kept epoch once: find unusable channels, and fit each session's whitener on its training epochs.

    Raises
    ------
    BadRecording
        If a session has no usable training epochs, or, in a recipe that keeps bad channels, if
        a sample is not finite.
    """
    found = Examination(counts={"unusable channel-epochs": 0, "repetitions lost to them": 0, "dead channels": 0})
    nothing = np.zeros(len(plan.cutter.channels), bool)
    for session in plan.sessions:
        good = {}
        total = CovarianceSum(len(plan.cutter.channels))
        for split in SPLITS:
            if (session, split) in plan.events:
                good[split], n = _examine_recording(plan, session, split, total if split == "train" else None, progress)
                if n:
                    where = f"{subject_name(plan.flight.subject)}/ses-{session:02d}"
                    what = f"{n} of {len(good[split])} {split} epochs span more than 1 mV: artefacts, kept"
                    found.notes.append(f"{where}: {what}")
        # The test recording has no say: it must not shape what the training epochs become.
        dead, in_test = (_dead(good[split]) if split in good else nothing for split in SPLITS)
        where = f"{subject_name(plan.flight.subject)}/ses-{session:02d}"
        if dead.any():
            names = _names(plan, dead)
            found.notes.append(f"{where}: {', '.join(names)} flat or broken in most epochs: zero in this session")
            found.counts["dead channels"] += len(names)
        if (in_test & ~dead).any():
            names = _names(plan, in_test & ~dead)
            what = "flat or broken in most test epochs alone: those epochs are left out"
            found.notes.append(f"{where}: {', '.join(names)} {what}")
        for split, mask in good.items():
            usable = np.zeros(len(plan.events[session, split].codes), bool)
            usable[plan.used(session, split)] = (mask | dead).all(axis=1)
            found.good[session, split] = usable
            found.counts["unusable channel-epochs"] += int((~mask).sum())
            found.counts["repetitions lost to them"] += len(mask) - int((mask | dead).all(axis=1).sum())
        found.whiteners[session] = _whitener(plan, session, total.mean(), dead)
    return found


def _examine_recording(
    plan: SubjectPlan, session: int, split: str, total: CovarianceSum | None, progress: Progress
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
        elif not np.isfinite(epochs).all():
            first, last = int(onsets[part].min()), int(onsets[part].max())
            low, high = plan.cutter.matrix.required
            where = first_broken(recording, plan.cutter.channels, first + low, last + high + 1)
            place = f"channel {where[0]} at {where[1]:.3f} s" if where else "an epoch"
            raise BadRecording(
                f"{recording.path}: {place} is not a finite number",
                f"recipe {plan.recipe.name} has no answer to that: use --recipe clean, which leaves such epochs out",
            )
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


def _whitener(plan: SubjectPlan, session: int, covariance: np.ndarray, dead: np.ndarray) -> np.ndarray:
    if plan.recipe.mvnn == "none":
        return np.diag(np.where(dead, 0.0, 1.0))
    covariance[dead] = covariance[:, dead] = 0
    whitener, rank = inverse_square_root(covariance)
    if rank == 0:
        where = f"{subject_name(plan.flight.subject)}/ses-{session:02d}"
        raise BadRecording(
            f"{where} has no usable training epochs to fit the whitening on",
            "move this session's folder away to go on without it",
        )
    return whitener


def block_of_epochs(
    plan: SubjectPlan, found: Examination, split: str, images: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return whitened epochs, ``valid`` and ``session`` of some images, missing repetitions NaN.

    Parameters
    ----------
    plan, found : SubjectPlan, Examination
        What goes where, and the whiteners.
    split : {"train", "test"}
        Which images.
    images : slice
        Which of them, as rows of the split's slots.

    Returns
    -------
    epochs : (n_images, n_repetitions, n_chans, n_times)
        In the recipe's ``dtype``.
    valid : (n_images, n_repetitions) of bool
        Where there is a usable repetition.
    session : (n_images, n_repetitions) of int16
        Session of each repetition, -1 where there is none.
    """
    slots = plan.slots[split]
    session, presentation = slots.session[images], slots.presentation[images]
    valid = usable(found, slots, split)[images]
    epochs = np.full((*valid.shape, len(plan.cutter.channels), plan.recipe.n_times), np.nan, plan.recipe.dtype)
    limit = np.finfo(plan.recipe.dtype).max
    for number in np.unique(session[valid]).tolist():
        rows, repetitions = np.nonzero(valid & (session == number))
        onsets = plan.events[number, split].onsets[presentation[rows, repetitions]]
        whitener = found.whiteners[number].astype(plan.recipe.compute)
        alive = found.whiteners[number].any(axis=0)
        for part, raw in plan.cutter.batches(plan.flight.recordings[number, split], onsets):
            if not alive.all():
                raw[:, ~alive] = 0  # a dead channel may be NaN, and NaN times zero is NaN
            whitened = whitener @ raw
            found.clipped += int((np.abs(whitened) > limit).sum())  # float16 ends at 65504 sd
            epochs[rows[part], repetitions[part]] = np.clip(whitened, -limit, limit)
    return epochs, valid, session


def usable(found: Examination, slots: Slots, split: str) -> np.ndarray:
    """Return which slots hold a usable repetition, ``(n_images, n_repetitions)`` of bool."""
    valid = slots.filled.copy()
    for (session, which), good in found.good.items():
        if which == split:
            here = slots.session == session
            valid[here] = good[slots.presentation[here]]
    return valid


def trials_table(plan: SubjectPlan, found: Examination, split: str, images: ImageList) -> pa.Table:
    """Return one row per image and repetition: what was shown, when, and whether it can be used."""
    slots = plan.slots[split]
    rows, repetitions = np.nonzero(slots.filled)
    codes = slots.codes[rows]
    session, presentation = slots.session[rows, repetitions], slots.presentation[rows, repetitions]
    onsets = np.array(
        [plan.events[s, split].onsets[p] for s, p in zip(session.tolist(), presentation.tolist(), strict=True)],
        dtype=np.int64,
    )
    columns: dict[str, Any] = {
        "image_id": [images.ids[code - 1] for code in codes.tolist()],
        "concept": [images.concepts[code - 1] for code in codes.tolist()],
        "concept_things_nr": pa.array([images.things_numbers[code - 1] for code in codes.tolist()], pa.int32()),
        "event_code": codes.astype(np.int32),
        "session": session.astype(np.int16),
        "onset_sample": onsets,
        "presentation_index": presentation.astype(np.int32),
        "repetition": repetitions.astype(np.int16),
        "split": [split] * len(rows),
        "valid": usable(found, slots, split)[rows, repetitions],
    }
    return pa.table(columns)
