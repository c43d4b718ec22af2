"""An epoch store in a notebook, and the way from there to MNE-Python."""

from typing import TYPE_CHECKING, Any

import numpy as np

from embedctl.html import definition, page, rows_of
from stores.epochs import EpochStore, SplitEpochs, SubjectEpochs
from stores.errors import EmbedctlError, UnknownName, suggest

if TYPE_CHECKING:
    import mne
    from matplotlib.figure import Figure

__all__ = ["Epochs", "Subject", "spread"]

# Volts, tesla or tesla per metre in one of a stored unit, and what MNE calls a kind of channel.
_IN_SI = {
    **{"V": 1.0, "mV": 1e-3, "uV": 1e-6, "µV": 1e-6, "T": 1.0, "nT": 1e-9, "fT": 1e-15},
    **{"T/m": 1.0, "fT/cm": 1e-13},
}
_SCALED = ("sd of noise", "sd of baseline", "interquartile ranges", "sd")  # what has no unit any more
_KIND = {"eeg": "eeg", "meg": "mag"}


class Epochs:
    """An epoch store: ``epochs["things-eeg2", 1]`` opens one subject.

    Parameters
    ----------
    store : EpochStore
        The open store.
    """

    def __init__(self, store: EpochStore) -> None:
        self._store = store

    def datasets(self) -> list[str]:
        """Return the datasets that are stored."""
        return self._store.datasets()

    def subjects(self, dataset: str) -> list[int]:
        """Return the subjects of a dataset."""
        return self._store.subjects(dataset)

    def __getitem__(self, key: tuple[str, int]) -> "Subject":
        return Subject(self._store[key])

    def plot_spread(self, dataset: str = "") -> "Figure":
        """Draw how far the recordings of test images lie apart, signal and noise together: a line per subject.

        Parameters
        ----------
        dataset : str
            Which, where there are several.

        Raises
        ------
        UnknownName
            If there is no such dataset.
        EmbedctlError
            If several datasets are there and none is named, or there is no time axis.
        """
        from embedctl.pictures import spread_figure

        there = self.datasets()
        if dataset and dataset not in there:
            raise UnknownName(f"no dataset called '{dataset}'", suggest(dataset, there))
        if not dataset and len(there) != 1:
            raise EmbedctlError(f"there are {len(there)} datasets", f"name one: {', '.join(there)}")
        name = dataset or there[0]
        subjects = [self._store[name, number] for number in self.subjects(name)]
        courses = {f"subject {one.subject}": spread(one) for one in subjects}
        return spread_figure(courses, subjects[0].times, subjects[0].units)

    def __repr__(self) -> str:
        return repr(self._store)

    def _repr_html_(self) -> str:
        found = [self[dataset, subject] for dataset in self.datasets() for subject in self.subjects(dataset)]
        columns = ("dataset", "subject", "train images", "test images", "channels", "times", "units")
        rows = [
            (s.dataset, s.subject, len(s.train), len(s.test), len(s.ch_names), len(s.times), s.units) for s in found
        ]
        return page(str(self._store.path), rows_of(columns, rows))


class Subject:
    """The epochs of one subject.

    ``train`` and ``test`` hold ``mean`` (n_images, n_chans, n_times), ``image_ids``, ``concepts``, ``valid``
    and ``take(images)``, which gives single repetitions.

    Parameters
    ----------
    subject : SubjectEpochs
        As the store gives it.
    """

    def __init__(self, subject: SubjectEpochs) -> None:
        self._subject = subject
        self.dataset, self.subject, self.modality = subject.dataset, subject.subject, subject.modality
        self.ch_names: list[str] = subject.ch_names
        self.times: np.ndarray = subject.times
        self.sfreq, self.units, self.recipe, self.info = subject.sfreq, subject.units, subject.recipe, subject.info

    @property
    def train(self) -> SplitEpochs:
        """What a brain encoder learns from."""
        return self._subject.train

    @property
    def test(self) -> SplitEpochs:
        """What it is judged by."""
        return self._subject.test

    def to_mne(self, split: str = "test") -> "mne.EpochsArray":
        """Return every valid repetition of a split as MNE epochs, in the order of the images.

        Volts are volts again, tesla tesla; whitened and scaled values have no unit and are passed on as they are
        stored. The name of an event is its image.

        Parameters
        ----------
        split : {"train", "test"}
            Which.

        Raises
        ------
        UnknownName
            If there is no such split.
        EmbedctlError
            If the subject is not EEG or MEG, its unit is none that is known here, or the store keeps the mean alone.
        """
        import mne

        if split not in ("train", "test"):
            raise UnknownName(f"no split called '{split}'", suggest(split, ("train", "test")))
        if self.modality not in _KIND:
            raise EmbedctlError(f"{self.modality} epochs have no channels and times", "MNE reads EEG and MEG only")
        if self.units not in _IN_SI and self.units not in _SCALED:
            raise EmbedctlError(
                f"epochs in '{self.units}' cannot be put into volts or tesla",
                f"known: {', '.join(_IN_SI)}; test.take(range(len(test))) gives the numbers as they are stored",
            )
        kind = "grad" if self.units in ("T/m", "fT/cm") else _KIND[self.modality]
        chosen = self.train if split == "train" else self.test
        rows, repetitions = np.nonzero(chosen.valid)
        data = chosen.take(range(len(chosen)))[rows, repetitions] * _IN_SI.get(self.units, 1.0)
        events = np.column_stack([np.arange(len(rows)), np.zeros_like(rows), rows + 1])
        codes = {image: row + 1 for row, image in enumerate(chosen.image_ids) if chosen.valid[row].any()}
        info = mne.create_info(self.ch_names, self.sfreq, kind)
        made = mne.EpochsArray(
            data, info, events, tmin=float(self.times[0]), event_id=codes, baseline=None, proj=False, verbose="error"
        )
        positions: Any = self.info.get("ch_pos")
        if positions and self.modality == "meg":  # a montage is of electrodes
            for channel, at in zip(made.info["chs"], positions, strict=True):
                channel["loc"][:3] = np.nan if at is None else at
        elif positions:
            placed = {name: np.array(at) for name, at in zip(self.ch_names, positions, strict=True) if at is not None}
            made.set_montage(mne.channels.make_dig_montage(placed, coord_frame="head"), on_missing="ignore")
        return made

    def plot_spread(self) -> "Figure":
        """Draw how far the recordings of test images lie apart; see `Epochs.plot_spread`.

        Raises
        ------
        EmbedctlError
            If there is no time axis.
        """
        from embedctl.pictures import spread_figure

        return spread_figure({f"subject {self.subject}": spread(self._subject)}, self.times, self.units)

    def __repr__(self) -> str:
        return repr(self._subject)

    def _repr_html_(self) -> str:
        times = f"{self.times[0]:g} to {self.times[-1]:g} s, {self.sfreq:g} Hz" if len(self.times) else ""
        facts = {
            "train": repr(self.train),
            "test": repr(self.test),
            "channels": ", ".join(self.ch_names),
            "times": times,
            "units": self.units,
        }
        return page(f"{self.dataset}, subject {self.subject} ({self.modality})", definition(facts))


def spread(subject: SubjectEpochs) -> np.ndarray:
    """Return the standard deviation over test images, root mean square over channels, ``(n_times,)``.

    Raises
    ------
    EmbedctlError
        If there is no time axis.
    """
    if not len(subject.times):
        raise EmbedctlError(f"{subject.modality} epochs have no times", "there is no course to draw")
    over_images = np.nanstd(np.asarray(subject.test.mean, dtype=np.float64), axis=0)
    course: np.ndarray = np.sqrt((over_images**2).mean(axis=0))
    return course
