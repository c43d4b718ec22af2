"""The plan of a subject whose trials were cut by others: epochs ``(channel, time)`` or betas ``(voxel,)``.

Two passes over the trials, one session and a few hundred trials at a time. The first finds what cannot be used and
fits the recipe's scaling, per session; the second goes through the images, scales, clips and counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.preprocess.cutting import good_channels
from pipelines.preprocess.dataset import SPLITS, Examined, SplitPlan
from pipelines.preprocess.identity import meaning
from pipelines.preprocess.left_out import left_out, text_column, why_column
from pipelines.preprocess.slots import Presentations, Slots, assign
from pipelines.preprocess.trial_recipes import TrialRecipe
from pipelines.preprocess.trials import TrialFlight, inside
from pipelines.preprocess.whitening import CovarianceSum, inverse_square_root
from pipelines.progress import Progress
from stores.errors import BadRecording
from stores.names import subject_name

__all__ = ["CutTrials", "TrialExamination"]

# Columns of the table of trials; one of the user's with such a name gets a _ behind it.
_OWN = ("image_id", "concept", "session", "presentation_index", "repetition", "split", "valid", "kind", "left_out")
_BATCH_BYTES = 32_000_000
_SAMPLED = 300  # trials per session whose median and quartiles stand for all: 60,000 samples of every channel
_DEAD = 0.5  # a channel unusable in more than half of a session's training trials is zero in that session


@dataclass
class TrialExamination(Examined):
    """What the first pass found.

    Parameters
    ----------
    good : (n_trials,) of bool
        Whether the trial can be used.
    shift, scale : dict of session to array
        A stored value is ``(value - shift) * scale``, per channel or voxel; zero scale where it is dead.
    whitener : dict of session to (n_chans, n_chans)
        In place of ``scale`` where the recipe whitens.
    """

    good: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    shift: dict[int, np.ndarray] = field(default_factory=dict)
    scale: dict[int, np.ndarray] = field(default_factory=dict)
    whitener: dict[int, np.ndarray] = field(default_factory=dict)


class CutTrials:
    """A `pipelines.preprocess.dataset.SubjectPlan` of trials cut by others.

    Parameters
    ----------
    flight : TrialFlight
        The trials.
    recipe : TrialRecipe
        What becomes of them.
    """

    def __init__(self, flight: TrialFlight, recipe: TrialRecipe) -> None:
        self._flight, self._recipe = flight, recipe
        self.subject, self.modality, self.packages = flight.subject, flight.modality, flight.packages
        self.notes: list[str] = []
        self.time_offset_ms = flight.time_offset_ms
        self.dtype = recipe.dtype
        kept = flight.sessions <= recipe.sessions if recipe.sessions else np.ones(len(flight.images), bool)
        self.counts = {**flight.dropped, "in sessions the recipe leaves out": int((~kept).sum())}
        self._away, self.order = np.flatnonzero(~kept), flight.order
        images, splits = np.array(flight.images), np.array(flight.splits)
        self._ids: dict[str, list[str]] = {split: np.unique(images[splits == split]).tolist() for split in SPLITS}
        self._rows: dict[tuple[int, str], np.ndarray] = {}
        self._slots: dict[str, Slots] = {}
        for split in SPLITS:
            code_of = {image: code for code, image in enumerate(self._ids[split], start=1)}
            seen = {}
            for session in np.unique(flight.sessions[kept]).tolist():
                here = kept & (flight.sessions == session) & (splits == split)
                rows = np.flatnonzero(here)
                if len(rows):
                    self._rows[session, split] = rows
                    seen[session] = Presentations(rows, np.array([code_of[flight.images[row]] for row in rows]))
            self._slots[split] = assign(seen, None, 0)
        names = flight.ch_names
        self._channels = [names.index(name) for name in recipe.channels] or list(range(flight.row_shape[0]))
        self._trial = {split: self._numbers(split) for split in SPLITS}
        self._times = np.flatnonzero(inside(flight.times, recipe.window)) if recipe.window else None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Channels and samples of an epoch, or voxels."""
        rest = (len(self._times),) if self._times is not None else self._flight.row_shape[1:]
        return (len(self._channels), *rest)

    @property
    def ch_names(self) -> list[str]:
        """Name of every channel of an epoch; empty for voxels."""
        return [self._flight.ch_names[i] for i in self._channels] if self._flight.ch_names else []

    @cached_property
    def splits(self) -> dict[str, SplitPlan]:
        """The rows of each split."""
        concept = dict(zip(self._flight.images, self._flight.concepts, strict=True))
        found = {}
        for split, slots in self._slots.items():
            ids = [self._ids[split][code - 1] for code in slots.codes.tolist()]
            found[split] = SplitPlan(ids, [concept[image] for image in ids], slots.n_repetitions)
        return found

    @property
    def n_examined(self) -> int:
        """How many trials the first pass reads."""
        return sum(map(len, self._rows.values()))

    @property
    def n_at_once(self) -> int:
        """One core: the first pass goes through the sessions one after the other."""
        return 1

    @cached_property
    def sources(self) -> list[dict[str, Any]]:
        """What the files, and what was understood of them, are known by."""
        flight = self._flight
        understood = {
            "trials": [flight.images, flight.concepts, flight.splits],
            "sessions": flight.sessions,
            "columns": flight.columns,
            "axes": [flight.row_shape, flight.ch_names, flight.ch_pos, flight.times, flight.sfreq, flight.rois],
            "arrays": flight.arrays,
            "values": [flight.modality, flight.units, flight.time_offset_ms],
        }
        return [*flight.sources, meaning(understood)]

    def _read(self, rows: np.ndarray) -> np.ndarray:
        """Return some trials, sorted and each once, the recipe's channels and samples, ``(n, *row_shape)`` float32."""
        read = self._flight.read(rows)
        read = read if len(self._channels) == read.shape[1] else read[:, self._channels]
        return np.ascontiguousarray(read if self._times is None else read[..., self._times], np.float32)

    def _batches(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """Yield runs of trial numbers, each small enough to hold."""
        step = max(1, _BATCH_BYTES // (4 * int(np.prod(self._flight.row_shape))))
        for start in range(0, len(rows), step):
            yield rows[start : start + step]

    # -------------------------------------------------------------------------------- first pass

    def examine(self, progress: Progress) -> TrialExamination:
        """Find trials that cannot be used, and fit each session's scaling.

        Raises
        ------
        BadRecording
            If the recipe keeps bad channels and a value is not finite, or no training trial of a session can be used.
        """
        found = TrialExamination(good=np.zeros(len(self._flight.images), bool))
        found.counts = {"unusable channel-epochs": 0, "repetitions lost to them": 0, "dead channels": 0, "clipped": 0}
        for session in sorted({session for session, _ in self._rows}):
            good = {s: self._usable(self._rows[session, s], progress) for s in SPLITS if (session, s) in self._rows}
            judges = good.get("train", next(iter(good.values())))
            dead = (~judges).sum(axis=0) > _DEAD * len(judges)
            if dead.all():
                raise BadRecording(
                    f"{subject_name(self.subject)}/ses-{session:02d}: every channel is flat or broken in most trials",
                    "is this the right file? leave the session out of the table to go on without it",
                )
            if dead.any():
                found.counts["dead channels"] += int(dead.sum())
                listed = [self._name(channel) for channel in np.flatnonzero(dead)[:5]]
                what = f"{', '.join(listed)}{', ...' if dead.sum() > 5 else ''} flat or broken in most trials"
                found.notes.append(f"{subject_name(self.subject)}/ses-{session:02d}: {what}: zero in this session")
            for split, mask in good.items():
                usable = (mask | dead).all(axis=1)
                found.good[self._rows[session, split][usable]] = True
                found.counts["unusable channel-epochs"] += int((~mask).sum())
                found.counts["repetitions lost to them"] += int((~usable).sum())
            self._fit(found, session, dead)
        self._describe(found)
        return found

    def _usable(self, rows: np.ndarray, progress: Progress) -> np.ndarray:
        """Return which channels or voxels of which trials are neither flat nor broken, ``(n_trials, n_chans)``."""
        good = np.ones((len(rows), len(self._channels)), bool)
        done = 0
        for batch in self._batches(rows):
            values = self._read(batch)
            if self._recipe.bad_channels == "exclude":
                found = good_channels(values) if values.ndim == 3 else np.isfinite(values)
                good[done : done + len(batch)] = found
            elif not np.isfinite(values).all():
                first, channel = np.argwhere(~np.isfinite(values))[0][:2]
                raise BadRecording(
                    f"{subject_name(self.subject)}: trial {batch[first]}, {self._name(channel)} is not a finite number",
                    f"recipe {self._recipe.name} does not expect it: use --recipe clean, which leaves such trials out",
                )
            done += len(batch)
            progress.advance(len(batch))
        return good

    def _name(self, channel: int) -> str:
        names = self._flight.ch_names
        return names[self._channels[channel]] if names else f"voxel {channel}"

    def _fit(self, found: TrialExamination, session: int, dead: np.ndarray) -> None:
        """Fit the scaling of a session on its usable trials."""
        n = len(self._channels)
        shift, scale = np.zeros(n), np.where(dead, 0.0, 1.0)
        fit = SPLITS if self._recipe.fit == "all" else ("train",)
        rows = np.sort(np.concatenate([self._rows.get((session, split), np.zeros(0, np.int64)) for split in fit]))
        rows = rows[found.good[rows]]
        if self._recipe.scale != "none" and not len(rows):
            raise BadRecording(
                f"{subject_name(self.subject)}/ses-{session:02d} has no usable training trial to fit its scaling on",
                'leave this session out of the table, or use a recipe with scale = "none"',
            )
        if self._recipe.scale == "mvnn":
            found.whitener[session] = self._whitener(rows, dead)
        elif self._recipe.scale == "robust":
            chosen = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED)).astype(int))]
            values = self._read(chosen).swapaxes(0, 1).reshape(n, -1)
            low, shift, high = np.percentile(np.where(dead[:, None], 0, values), [25, 50, 75], axis=1)
            spread = high - low
        elif self._recipe.scale == "zscore":
            mean, sd = self._moments(rows)
            shift, spread = np.where(dead, 0, mean), sd
        if self._recipe.scale in ("robust", "zscore"):
            alive = ~dead & (spread > 0)
            found.counts["dead channels"] += int((~dead & ~alive).sum())
            scale = np.divide(1.0, spread, out=np.zeros(n), where=alive)
        found.shift[session], found.scale[session] = shift, scale

    def _whitener(self, rows: np.ndarray, dead: np.ndarray) -> np.ndarray:
        """Return the whitening matrix of some trials, every image counting the same."""
        images = np.array(self._flight.images)[rows]
        _, image, times = np.unique(images, return_inverse=True, return_counts=True)
        weights = dict(zip(rows.tolist(), 1 / (times[image] * len(times)), strict=True))
        total = CovarianceSum(len(self._channels))
        for batch in self._batches(rows):
            good = np.broadcast_to(~dead, (len(batch), len(dead)))
            total.add(self._read(batch), np.array([weights[row] for row in batch.tolist()]), good)
        return inverse_square_root(total.mean())[0]

    def _moments(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and population sd of every channel or voxel, in two readings so that nothing cancels."""
        n = len(self._channels)
        total, square, count = np.zeros(n), np.zeros(n), 0
        for batch in self._batches(rows):
            values = self._read(batch).swapaxes(0, 1).reshape(n, -1)
            total += np.nansum(values, axis=1, dtype=np.float64)
            count += values.shape[1]
        mean = total / count
        for batch in self._batches(rows):
            values = self._read(batch).swapaxes(0, 1).reshape(n, -1)
            square += np.nansum((values - mean[:, None]) ** 2, axis=1, dtype=np.float64)
        return mean, np.sqrt(square / count)

    def _describe(self, found: TrialExamination) -> None:
        flight, sessions = self._flight, sorted({session for session, _ in self._rows})
        found.arrays = dict(flight.arrays)
        if found.whitener:
            found.arrays["whitener"] = np.stack([found.whitener[session] for session in sessions])
        elif self._recipe.scale != "none":
            found.arrays["shift"] = np.stack([found.shift[session] for session in sessions])
            found.arrays["scale"] = np.stack([found.scale[session] for session in sessions])
        units = {"mvnn": "sd of noise", "robust": "interquartile ranges", "zscore": "sd"}
        found.info = {"units": units.get(self._recipe.scale, flight.units), "sessions": sessions}
        if self._recipe.scale != "none":
            found.info["units_before"] = flight.units
        if flight.rois:
            found.info["rois"] = flight.rois
        if len(self.row_shape) == 2:
            times = flight.times if self._times is None else [flight.times[i] for i in self._times]
            found.info |= {
                "ch_names": self.ch_names,
                "ch_pos": [flight.ch_pos[i] for i in self._channels] if flight.ch_pos else None,
                "times": times,
                "sfreq": flight.sfreq,
                "time_offset_ms": flight.time_offset_ms,
            }
        if self._recipe.clip:
            found.counts["clipped"] = self._count_clipped(found)

    def _count_clipped(self, found: TrialExamination) -> int:
        """Return how many stored values will be cut to the recipe's limit."""
        n = 0
        for (session, _), rows in sorted(self._rows.items()):
            for batch in self._batches(rows[found.good[rows]]):
                n += int((np.abs(self._scaled(found, session, self._read(batch))) > self._recipe.clip).sum())
        return n

    # ------------------------------------------------------------------------------- second pass

    def _scaled(self, found: TrialExamination, session: int, values: np.ndarray) -> np.ndarray:
        """Return trials of a session as the recipe scales them; a dead channel is zero, also where it was NaN."""
        if found.whitener:
            whitener = found.whitener[session].astype(np.float32)
            return whitener @ np.where(np.any(whitener, axis=0)[:, None], values, np.float32(0))
        axes = (slice(None), *[None] * (values.ndim - 2))
        shift, scale = found.shift[session].astype(np.float32)[axes], found.scale[session].astype(np.float32)[axes]
        if not shift.any() and (scale == 1).all():
            return values
        return np.where(scale == 0, np.float32(0), values - shift) * scale

    def trials(self, found: TrialExamination, split: str) -> pa.Table:
        """Return one row per repetition of an image."""
        slots = self._slots[split]
        images, repetitions = np.nonzero(slots.filled)
        rows = self._trial[split][images, repetitions]
        own: dict[str, Any] = {
            "image_id": [self._flight.images[row] for row in rows],
            "concept": [self._flight.concepts[row] for row in rows],
            "session": self._flight.sessions[rows].astype(np.int16),
            "presentation_index": rows.astype(np.int32),
            "repetition": repetitions.astype(np.int16),
            "split": [split] * len(rows),
            "valid": found.good[rows],
        }
        told = {"kind": text_column("image", len(rows)), "left_out": why_column(found.good[rows])}
        return pa.table({**self._of_dataset(rows), **own, **told})

    def _of_dataset(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the columns of some trials that only their dataset has, and where in its files they are."""
        columns = {**self._flight.columns, **self._flight.places}
        names = {name: f"{name}_" if name in _OWN else name for name in columns}
        return {names[name]: pa.array(np.asarray(values)[rows]) for name, values in columns.items()}

    @property
    def left_out(self) -> list[pa.Table]:
        """Catch trials and the like, and trials of sessions that the recipe does not take."""
        flight, rows = self._flight, self._away
        columns = {
            "image_id": pa.array([flight.images[row] for row in rows], pa.string()),
            "concept": pa.array([flight.concepts[row] for row in rows], pa.string()),
            "presentation_index": rows.astype(np.int32),
            "split": pa.array([flight.splits[row] for row in rows], pa.string()),
            **self._of_dataset(rows),
        }
        away = left_out("image", "in a session the recipe leaves out", flight.sessions[rows], columns)
        return [*flight.left_out, away]

    def _numbers(self, split: str) -> np.ndarray:
        """Return the trial in every slot, ``(n_images, n_repetitions)``; -1 where there is none."""
        slots = self._slots[split]
        trial = np.full(slots.session.shape, -1, np.int64)
        for (session, which), rows in self._rows.items():
            if which == split:
                here = slots.session == session
                trial[here] = rows[slots.presentation[here]]
        return trial

    def block(self, found: TrialExamination, split: str, images: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return scaled epochs, ``valid`` and ``session`` of some images, missing repetitions NaN."""
        session, trial = self._slots[split].session[images], self._trial[split][images]
        valid = np.logical_and(trial >= 0, found.good[trial])
        epochs = np.full((*valid.shape, *self.row_shape), np.nan, self.dtype)
        limit = self._recipe.clip or np.finfo(self.dtype).max
        for number in np.unique(session[valid]).tolist():
            places = np.argwhere(valid & (session == number))
            wanted = trial[places[:, 0], places[:, 1]]
            order = np.argsort(wanted)
            for part in self._batches(order):
                scaled = self._scaled(found, number, self._read(wanted[part]))
                if not self._recipe.clip:  # what the recipe clips is counted in the first pass
                    found.add_clipped(int((np.abs(scaled) > limit).sum()))
                epochs[places[part, 0], places[part, 1]] = np.clip(scaled, -limit, limit)
        return epochs, valid, session
