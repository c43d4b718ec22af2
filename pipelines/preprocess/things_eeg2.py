"""THINGS-EEG2 (Gifford et al. 2022, NeuroImage 264:119754) as it is downloaded.

::

    raw/things-eeg2/
        image_metadata.npy                     image number -> concept and file, for both splits
        sub-01/ses-01/raw_eeg_training.npy     {raw_eeg_data (64, n) float64 volts, ch_names, ch_types, sfreq}
        sub-01/ses-01/raw_eeg_test.npy         the last channel is 'stim': one non-zero sample per image onset

The code of an event is the 1-based number of the image in the metadata, 99999 a target. The trigger
was already delayed to meet the screen, so onsets are used as they are.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os.path import lexists
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.channels import canonical_names
from pipelines.preprocess.dataset import SPLITS, Problem
from pipelines.preprocess.raw_npy import map_pickled
from pipelines.preprocess.recording import ImageList
from pipelines.preprocess.slots import Presentations
from stores.errors import BadRecording, UnknownName

__all__ = [
    "FILES",
    "TARGET",
    "Recording",
    "find_image_lists",
    "find_recordings",
    "find_subjects",
    "open_recording",
    "presentations",
    "subject_folder",
]

TARGET = 99999  # Buzz Lightyear: the participant counts him
FILES = {
    "train": ("raw_eeg_training.npy", "raw_eeg_train.npy"),
    "test": ("raw_eeg_test.npy",),
}
"""What the file of each split is called, and what else some call it."""

_IMAGE_FOLDERS = {"train": "training_images", "test": "test_images"}


@dataclass(frozen=True, slots=True)
class Recording:
    """One mapped recording; no sample of it has been read.

    Parameters
    ----------
    path : Path
        Where it lies.
    samples : (n_rows, n_samples)
        Mapped from the file, volts.
    rows : dict
        Row of every EEG channel, in the order of the file.
    stim : int
        Row of the event codes.
    sfreq : float
        Sampling frequency, Hz.
    simulated : bool
        Whether the file says so.
    """

    path: Path
    samples: np.ndarray
    rows: dict[str, int]
    stim: int
    sfreq: float
    simulated: bool = False

    @property
    def n_samples(self) -> int:
        """Length of the recording."""
        return self.samples.shape[1]

    def fits(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return which stretches from sample ``first`` to sample ``last`` lie inside the recording."""
        return (first >= 0) & (last < self.n_samples)

    def is_marked(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return which stretches somebody marked as bad: the format has no place for that."""
        return np.zeros(len(first), bool)

    def place(self, onsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return in which run onsets are: the seams of the five runs are not marked, so all are in the first."""
        return np.zeros_like(onsets), onsets

    @property
    def files(self) -> dict[Path, list[Path]]:
        """The one file."""
        return {self.path: [self.path]}

    def read(self, first: int, stop: int, channels: Sequence[str], scale: float = 1.0) -> np.ndarray:
        """Return samples ``first`` to ``stop`` of ``channels`` times ``scale``, float64, ``(n_chans, stop - first)``.

        Beyond its ends the recording is taken to hold its first or last value: only the tails of
        a low-pass around the outermost epochs ever ask for that.
        """
        inside = slice(max(first, 0), min(stop, self.n_samples))
        rows = [self.rows[name] for name in channels]
        if rows == list(range(rows[0], rows[0] + len(rows))):  # as in the file: no copy between
            part = self.samples[rows[0] : rows[0] + len(rows), inside]
        else:
            part = self.samples[rows, inside]
        block = np.multiply(part, scale, dtype=np.float64)
        missing = (inside.start - first, stop - inside.stop)
        return np.pad(block, ((0, 0), missing), mode="edge") if any(missing) else block


def find_subjects(raw: Path, inside: str = "ses-01/raw_eeg_training.npy") -> dict[int, Path]:
    """Return the folder of every subject under ``raw``, in which ``inside`` should lie.

    Raises
    ------
    BadRecording
        If the folder is missing or holds no ``sub-XX``.
    """
    if not raw.is_dir():
        raise BadRecording(f"no folder {raw}", "put the downloaded recordings there, or name them with --raw")
    found = _numbered(raw, r"sub-?(\d+)")
    if not found:
        raise BadRecording(f"{raw} holds no subjects", f"expected folders sub-01, sub-02, ... with {inside} inside")
    return found


def find_recordings(subject_folder: Path) -> dict[int, dict[str, Path]]:
    """Return, per session number, the file of each split that is there; both spellings of training are known."""
    recordings: dict[int, dict[str, Path]] = {}
    for number, folder in _numbered(subject_folder, r"ses-?(\d+)").items():
        for split, names in FILES.items():
            for name in names:
                if lexists(folder / name):  # a folder or a dead link of that name is told, not passed over
                    recordings.setdefault(number, {}).setdefault(split, folder / name)
    return recordings


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    found = {}
    for path in sorted(folder.iterdir()):
        match = re.fullmatch(pattern, path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def find_image_lists(raw: Path) -> tuple[dict[str, ImageList], list[Problem]]:
    """Read ``image_metadata.npy`` from ``raw`` or its ``image_set`` folder, and return all that is wrong with it.

    Returns
    -------
    lists : dict
        Image list of each split whose list can be used.
    problems : list of Problem
        Everything that keeps the others from it.
    """
    candidates = [raw / "image_metadata.npy", raw / "image_set" / "image_metadata.npy"]
    path = next((path for path in candidates if lexists(path)), None)
    if path is None:
        fix = "it says which image a code means: https://osf.io/y63gw/files/qkgtf"
        return {}, [Problem("image_metadata.npy", "file", f"no image_metadata.npy in {raw}", fix)]
    try:
        metadata = map_pickled(path)
    except BadRecording as bad:
        return {}, [Problem.of(bad, path, path.name)]
    lists, problems = {}, []
    for split in SPLITS:
        prefix = {"train": "train_img", "test": "test_img"}[split]
        wanted = (f"{prefix}_concepts", f"{prefix}_files", f"{prefix}_concepts_THINGS")
        texts = {}
        for key in wanted:
            try:
                if key not in metadata and key != wanted[2]:
                    held = ", ".join(map(str, metadata)) or "nothing"
                    raise BadRecording(f"lacks '{key}'", f"it holds {held}")
                texts[key] = _texts(path, metadata, key)
            except BadRecording as bad:
                problems.append(Problem.of(bad, path, path.name, key))
        if len(texts) == len(wanted):
            try:
                lists[split] = _image_list(split, prefix, *texts.values())
            except BadRecording as bad:
                problems.append(Problem.of(bad, path, path.name, wanted[1]))
    return lists, problems


def _image_list(split: str, prefix: str, folders: list[str], names: list[str], things: list[str]) -> ImageList:
    if len(folders) != len(names):
        raise BadRecording(f"{len(folders)} {prefix}_concepts, {len(names)} {prefix}_files", "download it again")
    numbers: list[int | None] = (
        [_leading_number(item) for item in things] if len(things) == len(names) else [None] * len(names)
    )
    ids = [f"{_IMAGE_FOLDERS[split]}/{folder}/{name}" for folder, name in zip(folders, names, strict=True)]
    twice = next((image for image, n in Counter(ids).items() if n > 1), None)
    if twice:
        raise BadRecording(f"{prefix}_files names {twice} twice", "two codes cannot be one image: download it again")
    return ImageList(ids, [re.sub(r"^\d+_", "", folder) for folder in folders], numbers)


def _texts(path: Path, fields: Mapping[str, Any], key: str) -> list[str]:
    """Return a list of a pickled dictionary as texts; empty where there is no such list."""
    value = fields.get(key, [])
    if not isinstance(value, list | tuple | np.ndarray) or np.ndim(value) != 1:
        raise BadRecording(f"{path}: {key} is {value!r:.60}, not a list", "download it again")
    return [str(item) for item in value]


def _leading_number(text: str) -> int | None:
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


def open_recording(path: Path) -> Recording:
    """Map a raw file and check its fields, reading none of its samples.

    Raises
    ------
    BadRecording
        Naming the file, the field and what is wrong with it.
    """
    raw = map_pickled(path)
    for key in ("raw_eeg_data", "ch_names", "sfreq"):
        if key not in raw:
            held = ", ".join(map(str, raw)) or "nothing"
            raise BadRecording(f"{path} lacks '{key}'", f"it holds {held}: is it a raw file?")
    samples, names = raw["raw_eeg_data"], canonical_names(_texts(path, raw, "ch_names"))
    if not isinstance(samples, np.ndarray) or samples.ndim != 2 or samples.dtype.kind != "f" or not samples.size:
        raise BadRecording(f"{path}: raw_eeg_data is not a float array (channel, sample)", "is it a preprocessed file?")
    if len(samples) != len(names):
        raise BadRecording(f"{path}: {len(samples)} rows but {len(names)} ch_names", "download it again")
    types = _texts(path, raw, "ch_types" if "ch_types" in raw else "ch_type")
    if len(types) != len(names):
        types = ["stim" if name.lower() == "stim" else "eeg" for name in names]
    stims = [row for row, kind in enumerate(types) if kind == "stim"]
    if len(stims) != 1:
        raise BadRecording(f"{path}: {len(stims)} channels of type 'stim' in ch_types", "exactly one holds the events")
    rows = {name: row for row, (name, kind) in enumerate(zip(names, types, strict=True)) if kind == "eeg"}
    if len(rows) != types.count("eeg"):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise BadRecording(f"{path}: ch_names holds {', '.join(twice)} twice", "rename or drop one of them")
    try:
        sfreq = float(raw["sfreq"])
    except (TypeError, ValueError, OverflowError):
        sfreq = 0.0
    if not 0 < sfreq < 1e6:
        raise BadRecording(f"{path}: sfreq is {raw['sfreq']!r:.60}", "expected samples per second, 1000 in THINGS-EEG2")
    return Recording(path, samples, rows, stims[0], sfreq, simulated=raw.get("simulated") is True)


def presentations(recording: Recording) -> Presentations:
    """Return the rising edges of the stim channel and their codes, targets included.

    Equals ``mne.find_events(raw, "stim")`` on rows that hold one sample per event.
    """
    stim = np.array(recording.samples[recording.stim], dtype=np.float64)
    onsets = np.flatnonzero(np.diff(stim, prepend=0) > 0)  # where a code is no number, preflight says so
    return Presentations(onsets, np.rint(stim[onsets]).astype(np.int64))


def subject_folder(raw: Path, subject: int) -> Path:
    """Return the folder of ``subject``, or say which subjects there are."""
    found = find_subjects(raw)
    if subject not in found:
        known = ", ".join(map(str, found))
        raise UnknownName(f"no subject {subject} in {raw}", f"there: {known}; see --subject")
    return found[subject]
