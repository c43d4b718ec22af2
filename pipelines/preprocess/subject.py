"""One subject from mapped recordings to whitened epochs in image order, a block at a time.

Two passes, neither of which holds more than a few hundred epochs. The first (`examining`) finds
unusable channels and adds up the covariance of each session. The second goes through the *images*: it
cuts their epochs again, from all sessions, whitens and writes them. Cutting twice is
cheaper than parking 5 GB of epochs on disk in between, and leaves nothing to clean up after a crash.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.preprocess.cutting import Cutter
from pipelines.preprocess.dataset import SPLITS
from pipelines.preprocess.left_out import left_out, why_column
from pipelines.preprocess.recipes import Recipe
from pipelines.preprocess.recording import ImageList, RecordedFlight
from pipelines.preprocess.slots import Presentations, Slots, assign
from stores.errors import BadRecording
from stores.names import subject_name

if TYPE_CHECKING:
    from pipelines.preprocess.examining import Examination

__all__ = ["SubjectPlan", "block_of_epochs", "plan_subject", "trials_table"]


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
    left_out : list of pyarrow.Table
        Presentations that became no repetition.
    """

    flight: RecordedFlight
    recipe: Recipe
    cutter: Cutter
    events: dict[tuple[int, str], Presentations]
    slots: dict[str, Slots]
    counts: dict[str, int]
    notes: list[str]
    left_out: list[pa.Table]

    @property
    def sessions(self) -> list[int]:
        """Numbers of the sessions there are."""
        return sorted({session for session, _ in self.events})

    def used(self, session: int, split: str) -> np.ndarray:
        """Return which presentations of a session are kept, in order of time, ``(n,)`` of int."""
        slots = self.slots[split]
        return np.sort(slots.presentation[slots.session == session])


def plan_subject(flight: RecordedFlight, recipe: Recipe) -> SubjectPlan:
    """Decide, from events alone, which presentation becomes which repetition of which image.

    Raises
    ------
    BadRecording
        If no image of a split can be used, or a session that is to be whitened has no training recording.
    """
    cutter = Cutter.of(recipe, next(iter(flight.recordings.values())))
    events, notes, lost = {}, [], []
    counts = dict.fromkeys(("targets dropped", "past the end of the file", "repetitions left out"), 0)
    for key, shown in flight.events.items():
        fits, is_marked = cutter.fits(flight.recordings[key], shown.onsets)
        events[key] = shown.select(fits & ~is_marked)
        lost.append(_rows_of(flight, key, shown.select(~fits), "past the end of the file"))
        lost.append(_rows_of(flight, key, shown.select(fits & is_marked), "marked bad, or across a seam"))
        counts["past the end of the file"] += int((~fits).sum())
        if n_marked := int((fits & is_marked).sum()):
            counts["marked bad, or across a seam"] = counts.get("marked bad, or across a seam", 0) + n_marked
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
    sfreq = next(iter(flight.recordings.values())).sfreq
    if sfreq < recipe.sfreq:
        what = f"recorded at {sfreq:g} Hz: epochs at {recipe.sfreq:g} Hz hold nothing above {sfreq / 2:g} Hz"
        notes.append(f"{subject_name(flight.subject)}: {what}")
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
    plan = SubjectPlan(flight, recipe, cutter, events, slots, counts, notes, lost)
    for key, shown in events.items():
        is_used = np.zeros(len(shown.codes), bool)
        is_used[plan.used(*key)] = True
        lost.append(_rows_of(flight, key, shown.select(~is_used), "not drawn"))
    return plan


def _rows_of(flight: RecordedFlight, key: tuple[int, str], shown: Presentations, why: str) -> pa.Table:
    """Return a row of the table of trials for presentations that became no repetition."""
    session, split = key
    images, codes = flight.images[split], shown.codes.tolist()
    columns: dict[str, Any] = {
        "image_id": pa.array([images.ids[code - 1] for code in codes], pa.string()),
        "concept": pa.array([images.concepts[code - 1] for code in codes], pa.string()),
        "concept_things_nr": pa.array([images.things_numbers[code - 1] for code in codes], pa.int32()),
        "event_code": shown.codes.astype(np.int32),
        "onset_sample": shown.onsets.astype(np.int64),
        "split": pa.array([split] * len(codes), pa.string()),
    }
    if flight.runs:
        run, sample = flight.recordings[key].place(shown.onsets)
        columns |= {"onset_sample": sample.astype(np.int64), "run": (run + 1).astype(np.int16)}
    rows = left_out("image", why, np.full(len(codes), session), columns)
    return rows.set_column(0, "kind", pa.array(shown.kinds.tolist(), pa.string()))


def _fewest(shown: Presentations) -> int:
    """Return how often the image shown least often was shown."""
    return int(np.unique(shown.codes, return_counts=True)[1].min(initial=2**31))


def block_of_epochs(
    plan: SubjectPlan, found: "Examination", split: str, images: slice
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
            if max(whitened.max(), -whitened.min()) > limit:  # float16 ends at 65504 sd
                found.add_clipped(int((np.abs(whitened) > limit).sum()))
                np.clip(whitened, -limit, limit, out=whitened)
            epochs[rows[part], repetitions[part]] = whitened
    return epochs, valid, session


def usable(found: "Examination", slots: Slots, split: str) -> np.ndarray:
    """Return which slots hold a usable repetition, ``(n_images, n_repetitions)`` of bool."""
    valid = slots.filled.copy()
    for (session, which), good in found.good.items():
        if which == split:
            here = slots.session == session
            valid[here] = good[slots.presentation[here]]
    return valid


def trials_table(plan: SubjectPlan, found: "Examination", split: str, images: ImageList) -> pa.Table:
    """Return one row per image and repetition: what was shown, when, and whether it can be used."""
    slots = plan.slots[split]
    rows, repetitions = np.nonzero(slots.filled)
    codes = slots.codes[rows]
    session, presentation = slots.session[rows, repetitions], slots.presentation[rows, repetitions]
    onsets, run = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int16)
    kinds = np.full(len(rows), "image", dtype="U6")
    for number in np.unique(session).tolist():
        here, shown = session == number, plan.events[number, split]
        onsets[here], kinds[here] = shown.onsets[presentation[here]], shown.kinds[presentation[here]]
        if plan.flight.runs:
            run[here], onsets[here] = plan.flight.recordings[number, split].place(onsets[here])
    valid = usable(found, slots, split)[rows, repetitions]
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
        "valid": valid,
        "kind": pa.array(kinds.tolist(), pa.string()),
        "left_out": why_column(valid),
    }
    return pa.table({**columns, "run": run + 1} if plan.flight.runs else columns)
