"""Any recording or epochs file that MNE reads, a BIDS tree included, with a column or annotation that names the image.

::

    raw/mne/sub-01/[ses-01/][eeg/]sub-01_..._eeg.vhdr      recordings: .vhdr .edf .bdf .gdf .set .fif .cnt .ds .sqd ...
                                  sub-01_..._events.tsv    onset (s) or sample, image, and if that does not tell, split
    raw/mne/sub-01[_ses-01]-epo.fif                        or epochs, the image in their metadata or event names

The column that names the image is ``image``, ``stim_file``, ``image_path``, ``stimulus``, ``stim`` or ``file``: the
first that is there, or ``image = "NAME"`` in ``raw/mne/recording.toml``. Without a table, annotations (or event names)
that end like an image file are images. The split is the column ``split``, else the image's own path tells it:
``training_images/...``, ``test_images/...``. What names no image is counted and left out.
"""

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.bids import RECORDINGS, entity, not_brain, sidecar
from pipelines.preprocess.cut_trials import CutTrials
from pipelines.preprocess.dataset import SPLITS, Preflight, Problem
from pipelines.preprocess.mne_epochs import channel_positions, epochs_identity, read_epochs
from pipelines.preprocess.mne_recording import MneRecording, open_with_mne
from pipelines.preprocess.recipes import Recipe, read_recipe
from pipelines.preprocess.recorded import Recorded
from pipelines.preprocess.recording import ImageList, RecordedFlight
from pipelines.preprocess.recording_checks import compare_recordings, wrong_samples
from pipelines.preprocess.slots import Presentations
from pipelines.preprocess.trial_recipes import TrialRecipe, read_trial_recipe
from pipelines.preprocess.trial_tables import number_of, read_trials
from pipelines.preprocess.trials import TrialFlight, concept_of, count_trials
from stores.errors import BadRecording, UnknownName

__all__ = ["EpochFiles", "RecordingFiles", "open_dataset"]

_EPOCHS = re.compile(r".*[-_]epo\.fif(\.gz)?")
_PART = re.compile(r".*-\d+\.fif(\.gz)?")  # the second and further files of one that was split: MNE finds them
_IMAGE = re.compile(r".*\.(jpe?g|png|bmp|tiff?|webp|gif)", re.IGNORECASE)
_COLUMNS = ("image", "stim_file", "image_path", "stimulus", "stim", "file")
_NOT_RAW = {"derivatives", "sourcedata", "stimuli", "code"}  # folders of a BIDS tree
_SI = {"eeg": (1e6, "uV"), "mag": (1e15, "fT"), "grad": (1e13, "fT/cm")}


def open_dataset(raw: Path, recipe: str) -> "RecordingFiles | EpochFiles":
    """Open the recordings, or the epochs, in ``raw``."""
    if not raw.is_dir():
        raise BadRecording(f"no folder {raw}", "put the recordings there, or name them with --raw")
    found = [
        path
        for path in sorted(raw.rglob("*"))
        if path.name.lower().endswith(RECORDINGS)
        and not _PART.fullmatch(path.name)
        and not _NOT_RAW & set(path.relative_to(raw).parts[:-1])
        and not any(part.startswith(".") or part.endswith((".ds", ".mff")) for part in path.relative_to(raw).parts[:-1])
        and not path.name.startswith(".")
    ]
    files: dict[int, list[Path]] = {}
    for path in found:
        files.setdefault(entity(path.relative_to(raw), "sub") or 1, []).append(path)
    epochs = [path for path in found if _EPOCHS.fullmatch(path.name)]
    if not found:
        raise BadRecording(f"{raw} holds no recording and no epochs", f"MNE reads {' '.join(RECORDINGS)} here")
    if 0 < len(epochs) < len(found):
        other = next(path for path in found if path not in epochs)
        raise BadRecording(
            f"{raw} holds epochs ({epochs[0].name}) and recordings ({other.name})", "put them into two folders: --raw"
        )
    column = _column_named(raw / "recording.toml")
    if not epochs:
        return RecordingFiles(raw, files, column, read_recipe(recipe))
    kind = "epochs" if _kinds(open_with_mne(found[0], "read_epochs")).get("eeg") else "meg"
    return EpochFiles(raw, files, column, read_trial_recipe(recipe, kind))


def _column_named(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        return str(tomllib.loads(path.read_text(encoding="utf-8")).get("image", ""))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise BadRecording(f"{path} is not TOML: {problem}", "correct the line it names") from None


def _kinds(inst: Any) -> dict[str, list[str]]:
    """Return the names of EEG channels, magnetometers and gradiometers, those marked bad left out."""
    types = zip(inst.ch_names, inst.get_channel_types(), strict=True)
    kinds: dict[str, list[str]] = {}
    for name, kind in types:
        if name not in inst.info["bads"]:
            kinds.setdefault(kind, []).append(name)
    return kinds


def _split_of(image: str) -> str:
    """Return the split that an image's path tells; empty where it tells none."""
    for part in image.lower().split("/"):
        if re.search(r"(^|_)test", part):
            return "test"
        if re.search(r"(^|_)train", part):
            return "train"
    return ""


class _Named:
    """What both kinds of dataset share: who is there, and what the rows of a table of events are."""

    def __init__(self, raw: Path, files: dict[int, list[Path]], column: str) -> None:
        self._raw, self._files, self._column = raw, files, column

    def subjects(self) -> list[int]:
        """Return who is there."""
        return sorted(self._files)

    def _of(self, subject: int) -> list[Path]:
        if subject not in self._files:
            known = ", ".join(map(str, self.subjects()))
            raise UnknownName(f"no subject {subject} in {self._raw}", f"there: {known}; see --subject")
        return self._files[subject]

    def _short(self, path: Path) -> str:
        return path.relative_to(self._raw).as_posix()

    def _shown(self, flight: Preflight, where: str, table: dict[str, list[str]]) -> tuple[list[str], list[str]]:
        """Return image and split of every row, empty where the row shows no image, adding what is wrong."""
        names = [self._column] if self._column else [name for name in _COLUMNS if name in table]
        if not names or names[0] not in table:
            what = f"no column '{self._column}'" if self._column else f"no column of {', '.join(_COLUMNS)}"
            fix = f'it has {", ".join(table) or "none"}: name one in recording.toml, as image = "stim_file"'
            flight.problems.append(Problem(where, "image", what, fix))
            return [], []
        images = [text.replace("\\", "/") if text not in ("", "n/a", "nan", "None") else "" for text in table[names[0]]]
        given = table.get("split", [""] * len(images))
        splits = []
        for row, (image, word) in enumerate(zip(images, given, strict=True)):
            split = {"train": "train", "training": "train", "test": "test"}.get(word.lower(), "") or _split_of(image)
            splits.append(split if image else "")
            if image and not split:
                what = f"row {row + 1}, {image}: neither a column 'split' nor the path says train or test"
                flight.problems.append(Problem(where, "split", what, "add a column split with train or test"))
                return [], []
        if not any(images):
            flight.problems.append(Problem(where, "image", "no event names an image", "is this the right column?"))
        return images, splits


class RecordingFiles(_Named):
    """Continuous recordings.

    Parameters
    ----------
    raw : Path
        Folder that holds them.
    files : dict of int to list of Path
        The recordings of every subject.
    column : str
        Which column names the image; empty to look for it.
    recipe : Recipe
        How to cut and whiten.
    """

    def __init__(self, raw: Path, files: dict[int, list[Path]], column: str, recipe: Recipe) -> None:
        super().__init__(raw, files, column)
        self.recipe = recipe

    def preflight(self, subject: int) -> RecordedFlight:
        """Return all that is wrong with a subject's recordings and their events."""
        flight = RecordedFlight(subject)
        opened: dict[int, list[tuple[Path, Any]]] = {}
        for path in self._of(subject):
            try:
                opened.setdefault(entity(path.relative_to(self._raw), "ses") or 1, []).append(
                    (path, open_with_mne(path, "read_raw"))
                )
            except BadRecording as bad:
                what = bad.what.removeprefix(f"{path}: ")
                flight.problems.append(Problem(self._short(path), "file", what, bad.hint))
        runs = [run for session in opened.values() for run in session]
        if not runs:
            return flight
        unwanted = {name for path, _ in runs for name in not_brain(path)} | {
            name for _, raw in runs for name in raw.info["bads"]
        }
        kinds = _kinds(runs[0][1])
        modality = "eeg" if kinds.get("eeg") else "meg"
        channels = [name for name in kinds.get("eeg") or kinds.get("mag", []) if name not in unwanted]
        if not channels:
            flight.problems.append(
                Problem(self._short(runs[0][0]), "channels", "no EEG and no magnetometer in it", "set their types")
            )
            return flight
        twice = [name.removesuffix("-0") for name in channels if name.endswith("-0") and f"{name[:-2]}-1" in channels]
        if twice:  # MNE has numbered them
            what = f"it holds {', '.join(twice)} twice"
            flight.problems.append(Problem(self._short(runs[0][0]), "ch_names", what, "rename or drop one of them"))
        shown = {
            session: [self._events(flight, path, raw) for path, raw in of_session]
            for session, of_session in sorted(opened.items())
        }
        self._number_images(flight, shown)
        for session, of_session in sorted(opened.items()):
            self._join(flight, session, of_session, shown[session], channels, modality)
        compare_recordings(flight, self.recipe.channels, self._short)
        flight.modality, flight.runs = modality, True
        flight.ch_pos = dict(zip(channels, channel_positions(runs[0][1], channels), strict=True))
        return flight

    def _events(self, flight: RecordedFlight, path: Path, raw: Any) -> list[tuple[int, str, str]]:
        """Return sample, image and split of every image onset in a run."""
        where = self._short(path)
        beside = sidecar(path, "events")
        if beside.is_file():
            where = self._short(beside)
            try:
                columns = read_trials(beside)
            except BadRecording as bad:
                flight.problems.append(Problem(where, "file", bad.what.replace(str(beside), "").strip(), bad.hint))
                return []
            table = {name: [v or "" for v in columns[name].to_pylist()] for name in columns.column_names}
            samples = _samples(flight, where, table, raw)
        else:
            # MNE puts BrainVision's kind of marker in front.
            said = [re.sub("^(Comment|Stimulus)/", "", str(text)) for text in raw.annotations.description]
            table = {"image": [text if _IMAGE.fullmatch(text) else "" for text in said]}
            noted = raw.annotations
            samples = raw.time_as_index(noted.onset, use_rounding=True, origin=noted.orig_time)
            if not any(table["image"]):
                what = f"no {beside.name} beside it, and no annotation that ends like an image file"
                flight.problems.append(Problem(where, "events", what, "add the table of events, with a column image"))
                return []
        images, splits = self._shown(flight, where, table)
        if samples is None or not images:
            return []
        named = [(int(s), i, w) for s, i, w in zip(samples, images, splits, strict=True) if i]
        counts = {"events": len(images), "without an image": len(images) - len(named)}
        flight.counts[self._short(path)] = counts
        often = [sample for sample, n in Counter(sample for sample, _, _ in named).items() if n > 1]
        if often:
            what = f"{len(often)} samples have two events, the first is {often[0]}"
            flight.problems.append(Problem(where, "onset", what, "an image has one event: remove the copies"))
        return sorted(named)

    def _number_images(self, flight: RecordedFlight, shown: dict[int, list[list[tuple[int, str, str]]]]) -> None:
        """Give every image of each split its number, in the order of their names."""
        everything = [event for session in shown.values() for run in session for event in run]
        for split in SPLITS:
            ids = sorted({image for _, image, which in everything if which == split})
            flight.images[split] = ImageList(ids, [concept_of(image) for image in ids], [None] * len(ids))
            if not ids and everything:
                what = f"no {split} image in its events"
                where = f"sub-{flight.subject:02d}"
                flight.problems.append(Problem(where, split, what, "a subject needs both splits: leave it out"))
        both = set(flight.images["train"].ids) & set(flight.images["test"].ids)
        if both:
            what = f"{len(both)} images are in both train and test, such as {min(both)}"
            flight.problems.append(
                Problem(f"sub-{flight.subject:02d}", "split", what, "a test image must never be trained on")
            )

    def _join(
        self,
        flight: RecordedFlight,
        session: int,
        runs: list[tuple[Path, Any]],
        shown: list[list[tuple[int, str, str]]],
        channels: list[str],
        modality: str,
    ) -> None:
        """Put the runs of a session on one axis, with their events."""
        first = runs[0][1]
        for path, raw in runs:
            if raw.info["sfreq"] != first.info["sfreq"]:
                what = f"{raw.info['sfreq']:g} Hz, but {self._short(runs[0][0])} has {first.info['sfreq']:g} Hz"
                flight.problems.append(Problem(self._short(path), "sfreq", what, "use one rate per subject"))
            absent = [name for name in channels if name not in raw.ch_names]
            if absent:
                what = f"{len(absent)} channels of the subject's first recording are absent: {', '.join(absent[:5])}"
                flight.problems.append(Problem(self._short(path), "ch_names", what, "mark them bad in all recordings"))
        if flight.problems:
            return
        recording = MneRecording(runs[0][0], [raw for _, raw in runs], channels, modality)
        if modality == "eeg":
            where = self._short(runs[0][0])
            flight.problems += [Problem(where, *rest) for rest in wrong_samples(recording, "samples")]
        for split in SPLITS:
            code = {image: number for number, image in enumerate(flight.images[split].ids, start=1)}
            events = [
                (int(start) + sample, code[image])
                for start, run in zip(recording.starts, shown, strict=True)
                for sample, image, which in run
                if which == split
            ]
            if events:
                onsets, codes = np.array(events, dtype=np.int64).T
                flight.recordings[session, split] = recording
                flight.events[session, split] = Presentations(onsets, codes)
                often = np.unique(codes, return_counts=True)[1]
                flight.counts[f"ses-{session:02d} {split}"] = {
                    "images": len(often),
                    "fewest repetitions": int(often.min()),
                    "most repetitions": int(often.max()),
                }

    def plan(self, flight: RecordedFlight) -> Recorded:
        """Return what becomes of the presentations."""
        return Recorded.of(flight, self.recipe, "standard_1020")


def _samples(flight: RecordedFlight, where: str, table: dict[str, list[str]], raw: Any) -> np.ndarray | None:
    """Return the sample of every event: its column ``sample``, else ``onset`` in s."""
    column = "sample" if any(text.strip() for text in table.get("sample", [])) else "onset"
    try:
        values = np.array([float(text or "nan") for text in table[column]])
    except (KeyError, ValueError):
        flight.problems.append(Problem(where, column, "no number in every row", "onset is in s from the first sample"))
        return None
    if column == "sample":
        return np.nan_to_num(values, nan=-1e9).astype(np.int64)
    seconds, sfreq = raw.n_times / raw.info["sfreq"], raw.info["sfreq"]
    last = float(np.nanmax(values, initial=0.0))
    if last > 2 * seconds and last <= raw.n_times * 1.01:
        what = f"the last is {last:,.0f}, the recording has {seconds:,.0f} s and {raw.n_times:,} samples"
        fix = f"they are samples: divide them by {sfreq:g}, or call the column sample"
        flight.problems.append(Problem(where, "onset", what, fix))
        return None
    return np.rint(np.nan_to_num(values, nan=-1e6) * sfreq).astype(np.int64)


class EpochFiles(_Named):
    """Epochs saved by MNE.

    Parameters
    ----------
    raw : Path
        Folder that holds them.
    files : dict of int to list of Path
        The files of every subject.
    column : str
        Which column of the metadata names the image; empty to look for it.
    recipe : TrialRecipe
        What becomes of the epochs.
    """

    def __init__(self, raw: Path, files: dict[int, list[Path]], column: str, recipe: TrialRecipe) -> None:
        super().__init__(raw, files, column)
        self.recipe = recipe

    def preflight(self, subject: int) -> TrialFlight:
        """Return all that is wrong with a subject's epochs and the images they name."""
        flight = TrialFlight(subject, packages=("embedctl", "numpy", "mne"))
        opened, sessions, keep = [], [], []
        for path in self._of(subject):
            where = self._short(path)
            try:
                epochs = open_with_mne(path, "read_epochs")
            except BadRecording as bad:
                flight.problems.append(Problem(where, "file", bad.what.removeprefix(f"{path}: "), bad.hint))
                continue
            table = _metadata(epochs)
            images, splits = self._shown(flight, where, table)
            if not images:
                continue
            number = entity(path.relative_to(self._raw), "ses") or 1
            given = [number_of(text, "ses") for text in table.get("session", [])]
            shown = np.flatnonzero([bool(image) for image in images])
            opened.append((epochs, path))
            keep += [(len(opened) - 1, int(row)) for row in shown]
            flight.images += [images[row] for row in shown]
            flight.splits += [splits[row] for row in shown]
            sessions += [(given[row] if given else None) or number for row in shown]
            dropped = {"without an image": len(images) - len(shown)}
            flight.dropped = dict(Counter(flight.dropped) + Counter(dropped))
            flight.sources.append(epochs_identity(epochs, where, path))
        flight.concepts = [concept_of(image) for image in flight.images]
        flight.sessions = np.array(sessions, dtype=np.int64)
        if opened:
            self._describe(flight, opened, keep)
            count_trials(flight, self.recipe, self._short(opened[0][1]))
        return flight

    def _describe(self, flight: TrialFlight, opened: list[tuple[Any, Path]], keep: list[tuple[int, int]]) -> None:
        """Take over channels and times of the first file, compare the others with it, and make the reader."""
        first = opened[0][0]
        kinds = _kinds(first)
        kind = next((kind for kind in _SI if kinds.get(kind)), "")
        if not kind:
            flight.problems.append(
                Problem(self._short(opened[0][1]), "channels", "no EEG and no MEG channel in it", "set their types")
            )
            return
        factor, flight.units = _SI[kind]
        flight.modality = "eeg" if kind == "eeg" else "meg"
        flight.ch_names, flight.sfreq = kinds[kind], float(first.info["sfreq"])
        flight.times = [round(float(t), 9) for t in first.times]
        flight.row_shape = (len(flight.ch_names), len(flight.times))
        flight.ch_pos = channel_positions(first, flight.ch_names)
        for epochs, path in opened[1:]:
            absent = [name for name in flight.ch_names if name not in epochs.ch_names]
            if absent:
                what = f"{len(absent)} channels of {self._short(opened[0][1])} are absent: {', '.join(absent[:5])}"
                flight.problems.append(Problem(self._short(path), "ch_names", what, "use one set per subject"))
            if len(epochs.times) != len(first.times) or not np.allclose(epochs.times, first.times):
                what = f"other times than {self._short(opened[0][1])}"
                flight.problems.append(Problem(self._short(path), "times", what, "crop and resample them alike"))
        flight.read = lambda rows: read_epochs([epochs for epochs, _ in opened], keep, rows, flight.ch_names, factor)

    def plan(self, flight: TrialFlight) -> CutTrials:
        """Return what becomes of the epochs."""
        return CutTrials(flight, self.recipe)


def _metadata(epochs: Any) -> dict[str, list[str]]:
    """Return the metadata as text, column by column; without any, the names of the events that are images."""
    if epochs.metadata is not None:
        table = epochs.metadata
        return {str(name): [str(value) for value in table[name]] for name in table.columns}
    name_of = {code: name for name, code in epochs.event_id.items()}
    names = [name_of.get(code, "") for code in epochs.events[:, 2].tolist()]
    return {"image": [name if _IMAGE.fullmatch(name) else "" for name in names]}
