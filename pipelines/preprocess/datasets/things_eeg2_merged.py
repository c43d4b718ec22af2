"""THINGS-EEG2 as others have preprocessed it: the official 17-channel files, and those of the NICE/AlignVis family.

::

    raw/things-eeg2/image_metadata.npy
    raw/things-eeg2/sub-01/preprocessed_eeg_training.npy, preprocessed_eeg_test.npy

Both hold a dictionary with ``preprocessed_eeg_data`` (image, repetition, channel, time), whitened, ``ch_names`` and
``times``; the official ones are written by NumPy, the others are bare pickles, and neither is unpickled here. Row ``k``
is image ``k`` of the metadata. Which session a repetition is from is not in them. ``times`` of the NICE family has 300
entries for 250 samples, its first 50 too many.
"""

from os.path import lexists
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.cut_trials import CutTrials
from pipelines.preprocess.dataset import SPLITS, Problem
from pipelines.preprocess.identity import identify
from pipelines.preprocess.raw_npy import map_pickled
from pipelines.preprocess.recipes import built_in_folder, names_in
from pipelines.preprocess.recorded import positions
from pipelines.preprocess.things_eeg2 import find_image_lists, find_subjects, subject_folder
from pipelines.preprocess.trial_recipes import TrialRecipe, read_trial_recipe
from pipelines.preprocess.trials import TrialFlight, count_trials
from stores.errors import BadRecording, EmbedctlError
from stores.names import counted, subject_name

__all__ = ["MergedEEG2", "find_merged", "open_merged"]

_FILES = {
    "train": ("preprocessed_eeg_training.npy", "preprocessed_eeg_train.npy"),
    "test": ("preprocessed_eeg_test.npy",),
}
_KEYS = ("preprocessed_eeg_data", "ch_names", "times")
_FAMILIES = {"nice": (63, 250.0, 1.0), "gifford": (17, 100.0, -4.0)}  # channels, Hz, measured time offset in ms
_TOO_MANY = (300, 250)  # entries of times, samples: what the NICE family saves
_PLAUSIBLE_SD = (0.05, 20.0)  # of whitened values


def find_merged(folder: Path) -> dict[str, Path]:
    """Return the merged file of each split in a subject's folder."""
    return {split: folder / name for split, names in _FILES.items() for name in names[::-1] if lexists(folder / name)}


class MergedEEG2:
    """The merged files of THINGS-EEG2.

    Parameters
    ----------
    raw : Path
        Folder with ``sub-01``, ... and ``image_metadata.npy``.
    recipe : TrialRecipe
        What becomes of them.
    """

    def __init__(self, raw: Path, recipe: TrialRecipe) -> None:
        self._raw, self.recipe = raw, recipe
        self._images, self._wrong_lists = find_image_lists(raw)

    def subjects(self) -> list[int]:
        """Return who is there."""
        return sorted(find_subjects(self._raw))

    def preflight(self, subject: int) -> TrialFlight:
        """Return all that is wrong with a subject's two files."""
        folder = subject_folder(self._raw, subject)
        flight = TrialFlight(subject, units="sd of noise", problems=list(self._wrong_lists))
        files, data = find_merged(folder), {}
        for split in SPLITS:
            where = f"{folder.name}/{_FILES[split][0]}"
            if split not in files:
                what = "no such file: a subject needs both splits"
                flight.problems.append(Problem(where, split, what, "unpack the subject's archive here"))
                continue
            where = f"{folder.name}/{files[split].name}"
            try:
                data[split] = self._open(flight, split, files[split], where)
            except BadRecording as bad:
                flight.problems.append(Problem.of(bad, files[split], where))
        if flight.problems or len(data) < len(SPLITS):
            return flight
        if data["train"].shape[2:] != data["test"].shape[2:]:
            what = f"epochs of shape {data['test'].shape[2:]}, those of training have {data['train'].shape[2:]}"
            flight.problems.append(
                Problem(f"{folder.name}/{files['test'].name}", "shape", what, "use one family of files")
            )
            return flight
        self._list(flight, data)
        flight.row_shape = data["train"].shape[2:]
        flight.ch_pos = positions(tuple(flight.ch_names))
        flight.notes.append(f"{subject_name(subject)}: merged files do not say which session a repetition is from")
        count_trials(flight, self.recipe, folder.name)
        return flight

    def _open(self, flight: TrialFlight, split: str, path: Path, where: str) -> np.ndarray:
        """Map one file, and compare it with the metadata and with what its recipe says it is."""

        def problem(field: str, what: str, fix: str) -> None:
            flight.problems.append(Problem(where, field, what, fix))

        merged = map_pickled(path)
        lacking = [key for key in _KEYS if key not in merged]
        if lacking:
            raise BadRecording(f"lacks {', '.join(lacking)}", f"it holds {', '.join(merged) or 'nothing'}")
        values, times = merged["preprocessed_eeg_data"], np.asarray(merged["times"], dtype=np.float64).ravel()
        names = [str(name).strip() for name in merged["ch_names"]]
        if not isinstance(values, np.ndarray) or values.ndim != 4 or values.dtype.kind != "f":
            raise BadRecording(
                "preprocessed_eeg_data is not (image, repetition, channel, time)", "is it a merged file?"
            )
        images = self._images.get(split)
        if images and len(values) != len(images.ids):
            what = f"{len(values):,} images, the metadata has {len(images.ids):,}"
            problem("preprocessed_eeg_data", what, "file and metadata belong to different image sets")
        if len(names) != values.shape[2] or len(set(names)) != len(names):
            said = f"{counted(len(names), 'name')}, {len(set(names))} of them different"
            what = f"{said}, for {values.shape[2]} channels"
            problem("ch_names", what, "download it again")
        if (len(times), values.shape[3]) == _TOO_MANY:
            times = times[-values.shape[3] :]
        if len(times) != values.shape[3] or len(times) < 2:
            problem("times", f"{len(times)} entries for {values.shape[3]} samples", "ask its maker which they are")
            return values
        sfreq = 1 / float(np.median(np.diff(times)))
        n_chans, rate, offset = _FAMILIES.get(self.recipe.name, (len(names), sfreq, 0.0))
        if len(names) != n_chans or abs(sfreq - rate) > 0.01 * rate:
            what = f"{len(names)} channels at {sfreq:.0f} Hz; recipe {self.recipe.name} is {n_chans} at {rate:.0f} Hz"
            fitting = [name for name, (count, *_) in _FAMILIES.items() if count == len(names)]
            problem("ch_names", what, f"use --recipe {fitting[0]}" if fitting else "state a recipe of your own")
        sample = np.array(values[:: max(1, len(values) // 16)][:16], dtype=np.float64)
        sd = float(np.nanmedian(sample.std(axis=3)))
        if not _PLAUSIBLE_SD[0] < sd < _PLAUSIBLE_SD[1]:
            what = f"a channel typically varies by {sd:.2g}, whitened ones by about 1"
            problem(
                "preprocessed_eeg_data", what, "it was not whitened: begin with raw recordings, or --dataset arrays"
            )
        if split == "train":
            flight.ch_names, flight.sfreq = names, round(sfreq, 6)
            flight.times = [round(float(time), 9) for time in times]
            flight.time_offset_ms = offset
        elif flight.ch_names and names != flight.ch_names:
            problem("ch_names", "other channels, or another order, than in training", "use one family of files")
        flight.sources.append(identify(where, [path]))
        return values

    def _list(self, flight: TrialFlight, data: dict[str, np.ndarray]) -> None:
        """Say which image every repetition shows: image after image, training first."""
        places: list[tuple[str, int, int]] = []
        for split in SPLITS:
            images = self._images[split]
            n_images, n_repetitions = data[split].shape[:2]
            places += [(split, image, repetition) for image in range(n_images) for repetition in range(n_repetitions)]
            for column, values in ((flight.images, images.ids), (flight.concepts, images.concepts)):
                column += [value for value in values for _ in range(n_repetitions)]
            flight.splits += [split] * (n_images * n_repetitions)
        flight.sessions = np.zeros(len(places), dtype=np.int64)

        def read(rows: np.ndarray) -> np.ndarray:
            return np.stack(
                [data[split][image, repetition] for split, image, repetition in map(places.__getitem__, rows)]
            )

        flight.read = read

    def plan(self, flight: TrialFlight) -> CutTrials:
        """Return what becomes of the epochs."""
        return CutTrials(flight, self.recipe)


def open_merged(raw: Path, recipe: str) -> Any:
    """Open the merged files in ``raw``."""
    if recipe == "clean":
        raise EmbedctlError(
            f"{raw} holds merged files, which were whitened already; recipe clean begins with the raw recordings",
            f"use --recipe {' or '.join(names_in(built_in_folder('merged'))[::-1])}, or download the raw recordings",
        )
    return MergedEEG2(raw, read_trial_recipe(recipe, "merged"))
