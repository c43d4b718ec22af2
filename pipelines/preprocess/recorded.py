"""The plan of a subject whose epochs are cut out of continuous recordings and whitened (see `dataset`)."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.preprocess.dataset import SPLITS, SplitPlan
from pipelines.preprocess.examining import Examination, examine
from pipelines.preprocess.identity import identify, meaning
from pipelines.preprocess.recipes import Recipe
from pipelines.preprocess.recording import RecordedFlight
from pipelines.preprocess.recording_checks import short_name
from pipelines.preprocess.resampling import import_mne
from pipelines.preprocess.subject import SubjectPlan, block_of_epochs, plan_subject, trials_table
from pipelines.progress import Progress

__all__ = ["Recorded", "positions"]

_UNITS = {"eeg": {"uV": "uV", "V": "V"}, "meg": {"uV": "fT", "V": "nT"}}  # magnetometers are read times 1e9


@dataclass
class Recorded:
    """A `pipelines.preprocess.dataset.SubjectPlan` of continuous recordings.

    Parameters
    ----------
    flight : RecordedFlight
        Recordings and events.
    plan : SubjectPlan
        Which presentation becomes which repetition.
    montage : str
        MNE's name of the montage that says where channels are.
    """

    flight: RecordedFlight
    plan: SubjectPlan
    montage: str
    packages: tuple[str, ...] = ("embedctl", "numpy", "mne")

    @classmethod
    def of(cls, flight: RecordedFlight, recipe: Recipe, montage: str) -> "Recorded":
        """Plan a subject.

        Raises
        ------
        BadRecording
            If no image of a split can be used, or a session that is to be whitened has no training recording.
        """
        return cls(flight, plan_subject(flight, recipe), montage)

    @property
    def modality(self) -> str:
        """``eeg`` or ``meg``."""
        return self.flight.modality

    @property
    def subject(self) -> int:
        """Which one."""
        return self.flight.subject

    @property
    def counts(self) -> dict[str, int]:
        """What was dropped, and why."""
        return self.plan.counts

    @property
    def notes(self) -> list[str]:
        """What is worth knowing."""
        return self.plan.notes

    @property
    def row_shape(self) -> tuple[int, int]:
        """Channels and samples of an epoch."""
        return len(self.plan.cutter.channels), self.plan.recipe.n_times

    @property
    def ch_names(self) -> list[str]:
        """Name of every channel of an epoch."""
        return list(self.plan.cutter.channels)

    @property
    def dtype(self) -> str:
        """Number type of the stored epochs."""
        return self.plan.recipe.dtype

    @property
    def time_offset_ms(self) -> float:
        """The stored value at ``t`` is the signal at ``t`` plus this."""
        return self.plan.cutter.matrix.time_offset_ms

    @cached_property
    def splits(self) -> dict[str, SplitPlan]:
        """The rows of each split."""
        found = {}
        for split in SPLITS:
            slots, images = self.plan.slots[split], self.flight.images[split]
            codes = slots.codes.tolist()
            ids, concepts = [images.ids[code - 1] for code in codes], [images.concepts[code - 1] for code in codes]
            found[split] = SplitPlan(ids, concepts, slots.n_repetitions)
        return found

    @property
    def n_examined(self) -> int:
        """How many epochs the first pass reads."""
        return sum(len(self.plan.used(*key)) for key in self.plan.events)

    @property
    def n_at_once(self) -> int:
        """A core per session."""
        return len(self.plan.sessions)

    @cached_property
    def sources(self) -> list[dict[str, Any]]:
        """What the recordings, and what was understood of them, are known by."""
        recordings = {id(recording): recording for recording in self.flight.recordings.values()}
        files: dict[str, list[Path]] = {}
        for recording in recordings.values():
            for path, members in recording.files.items():
                files.setdefault(short_name(path), []).extend(members)
        events = {f"{session} {split}": [of.onsets, of.codes] for (session, split), of in self.plan.events.items()}
        understood = {
            "events": {key: np.stack(columns) for key, columns in events.items()},
            "images": {split: [of.ids, of.concepts, of.things_numbers] for split, of in self.flight.images.items()},
            "channels": [self.ch_names, self.flight.ch_pos, self.modality, self.montage],
            "sfreq": [recording.sfreq for recording in recordings.values()],
        }
        return [*(identify(name, members) for name, members in sorted(files.items())), meaning(understood)]

    @property
    def left_out(self) -> list[pa.Table]:
        """Targets and the like, and presentations that became no repetition."""
        return [*self.flight.left_out, *self.plan.left_out]

    @property
    def order(self) -> list[str]:
        """Runs, or the recordings of the two splits, one after the other."""
        apart = len({id(recording) for recording in self.flight.recordings.values()}) > len(self.plan.sessions)
        return ["session", *(["run"] if self.flight.runs else ["split"] if apart else []), "onset_sample"]

    def examine(self, progress: Progress) -> Examination:
        """Read every kept epoch once: find unusable channels, and fit each session's whitener."""
        found = examine(self.plan, progress)
        recipe, channels = self.plan.recipe, self.plan.cutter.channels
        measured_in = _UNITS[self.modality][recipe.units]
        found.arrays = {"whitener": np.stack([found.whiteners[session] for session in self.plan.sessions])}
        found.info = {
            "ch_names": list(channels),
            "ch_pos": [known.get(name) for name in channels] if (known := self.flight.ch_pos) else positions(channels),
            "montage": self.montage,
            "times": recipe.times,
            "sfreq": recipe.sfreq,
            "units": "sd of noise" if recipe.mvnn != "none" else measured_in,
            "time_offset_ms": self.time_offset_ms,
            "sessions": self.plan.sessions,
        }
        if recipe.mvnn != "none":
            found.info["units_before"] = measured_in
        if any(getattr(recording, "simulated", False) for recording in self.flight.recordings.values()):
            found.info["simulated"] = True
        return found

    def trials(self, found: Examination, split: str) -> pa.Table:
        """Return one row per repetition of an image."""
        return trials_table(self.plan, found, split, self.flight.images[split])

    def block(self, found: Examination, split: str, images: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return whitened epochs, ``valid`` and ``session`` of some rows."""
        return block_of_epochs(self.plan, found, split, images)


def positions(channels: tuple[str, ...]) -> list[list[float] | None]:
    """Return the position of every channel in head coordinates, m; None for one the 10-20 system does not know."""
    mne = import_mne()
    # mne 1.13 gave standard_1020 the name of the head it was measured on, and warns of the old one.
    new, old = "colin27_1020", "standard_1020"
    montage = mne.channels.make_standard_montage(new if new in mne.channels.get_builtin_montages() else old)
    known = [name for name in channels if name in montage.ch_names]
    if not known:
        return [None] * len(channels)
    info = mne.create_info(known, 1000.0, "eeg")
    info.set_montage(montage, verbose="error")
    places = {channel["ch_name"]: [round(float(x), 6) for x in channel["loc"][:3]] for channel in info["chs"]}
    return [places.get(name) for name in channels]
