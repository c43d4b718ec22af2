"""Any epochs or betas of one's own: ``.npy`` files, and a table that says what each of their rows is.

::

    raw/arrays/
        trials.csv (or trials.parquet)   one line per trial
        recording.toml                   what the axes are
        epochs.npy, or sub-01.npy, ...   (trial, channel, time), or (trial, voxel)

The table has the columns

=========  ===============================================================================================
image      path of the image below the folder of images; the only column that has no default but ``split``
split      ``train`` or ``test``
subject    ``1`` or ``sub-01``; 1 without the column
session    number of the session; 1 without the column
concept    what the image shows; without the column ``aardvark`` for ``aardvark_01b.jpg``, else the image's folder
file       which ``.npy``; without the column the only one, else ``sub-01.npy``, ...
row        its row in the file, from 0; without the column the lines of a file are its rows in order
=========  ===============================================================================================

and the other columns are kept in the table of trials. ``recording.toml`` holds ``modality`` (``eeg``, ``meg``,
``fmri``), ``units``, and for epochs ``ch_names``, ``sfreq`` in Hz and ``tmin``, the time of the first sample, in s; for
voxels, if they are known, regions of interest: ``[rois]``, then ``V1 = [0, 1, 2]``.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.preprocess.cut_trials import CutTrials
from pipelines.preprocess.dataset import Problem
from pipelines.preprocess.identity import identify
from pipelines.preprocess.impostors import read_head
from pipelines.preprocess.recorded import positions
from pipelines.preprocess.trial_recipes import TrialRecipe, read_trial_recipe
from pipelines.preprocess.trial_tables import missing_columns, number_of, read_trials
from pipelines.preprocess.trials import TrialFlight, concept_of, count_trials
from stores.errors import BadRecording, UnknownName, suggest
from stores.names import counted, subject_name

__all__ = ["Arrays", "open_dataset"]

_OWN = ("image", "split", "subject", "session", "concept", "file", "row")
_MODALITIES = ("eeg", "meg", "fmri")
_ABOUT = {"modality", "units", "ch_names", "sfreq", "tmin", "rois"}
_NUMBERS = {"sfreq": "samples per second, as 250", "tmin": "time of the first sample, s"}
_SPLITS = {"train": "train", "training": "train", "test": "test"}


class Arrays:
    """Arrays with a table.

    Parameters
    ----------
    raw : Path
        Folder that holds them.
    recipe : TrialRecipe
        What becomes of the trials.
    """

    def __init__(self, raw: Path, recipe: TrialRecipe) -> None:
        self._raw, self.recipe = raw, recipe
        if not raw.is_dir():
            raise BadRecording(f"no folder {raw}", "put the arrays there, or name them with --raw")
        self._path = next((p for p in (raw / "trials.parquet", raw / "trials.csv") if p.is_file()), raw / "trials.csv")
        self._table, self._wrong_table = pa.table({}), []
        try:
            self._table = read_trials(self._path)
            missing_columns(self._path, self._table, ("image", "split"))
        except BadRecording as bad:
            self._wrong_table = [Problem.of(bad, self._path, self._path.name, "table")]
        self._about, self._wrong_about = _read_about(raw / "recording.toml")
        asked = self._column("subject", "1")
        self._subject = np.array([-1 if (n := number_of(text, "sub")) is None else n for text in asked], np.int64)
        if (self._subject < 0).any():
            line = int(np.argmax(self._subject < 0))
            what = f"{asked[line]!r} in line {line + 2}"
            self._wrong_table.append(Problem(self._path.name, "subject", what, "write 1, or sub-01"))
        default = {subject: self._file(subject) for subject in self.subjects()}
        named = self._column("file", "")
        self._files = [name or default.get(who, "") for name, who in zip(named, self._subject.tolist(), strict=True)]

    def _file(self, subject: int) -> str:
        """Return the array of a subject whose lines name none."""
        arrays = [path.name for path in self._raw.glob("*.npy")]
        own = [f"{subject_name(number)}.npy" for number in self.subjects()]
        return arrays[0] if len(arrays) == 1 and arrays[0] not in own else f"{subject_name(subject)}.npy"

    def _column(self, name: str, otherwise: str) -> list[str]:
        """Return a column as text; what is empty becomes empty."""
        if name not in self._table.column_names:
            return [otherwise] * len(self._table)
        return ["" if value is None else str(value) for value in self._table[name].to_pylist()]

    def subjects(self) -> list[int]:
        """Return who is in the table; where that cannot be read, who has an array."""
        named = np.unique(self._subject[self._subject >= 0]).tolist()
        if not self._wrong_table or (named and "subject" in self._table.column_names):
            return named
        arrays = (re.fullmatch(r"sub-(\d+)\.npy", path.name) for path in self._raw.iterdir())
        return sorted(int(found[1]) for found in arrays if found) or [1]

    def preflight(self, subject: int) -> TrialFlight:
        """Compare a subject's lines with the arrays they name, and return all that is wrong."""
        lines = np.flatnonzero(self._subject == subject)
        if subject not in self.subjects():
            raise UnknownName(f"no subject {subject} in {self._path}", f"there: {', '.join(map(str, self.subjects()))}")
        flight = TrialFlight(subject, problems=list(self._wrong_table))
        table = self._path.name
        if self._wrong_table:
            self._look_at_the_rest(flight)
            return flight

        def problem(field: str, what: str, fix: str, file: str = table) -> None:
            flight.problems.append(Problem(file, field, what, fix))

        def text(name: str, otherwise: str = "") -> list[str]:
            column = self._column(name, otherwise)
            return [column[line] for line in lines]

        flight.images = [image.replace("\\", "/") for image in text("image")]
        given = text("split")
        flight.splits = [_SPLITS.get(word.lower(), "") for word in given]
        for k, (image, split) in enumerate(zip(flight.images, flight.splits, strict=True)):
            if not split:
                problem("split", f"{given[k]!r} in line {lines[k] + 2}", "write train or test")
                break
            if not image:
                problem("image", f"empty in line {lines[k] + 2}", "name the image, or remove the line")
                break
        sessions = [number_of(word, "ses") for word in text("session", "1")]
        if None in sessions:
            bad = sessions.index(None)
            problem("session", f"{text('session')[bad]!r} in line {lines[bad] + 2}", "write a whole number")
        flight.sessions = np.array([number or 0 for number in sessions])
        named = text("concept")
        flight.concepts = [name or concept_of(image) for name, image in zip(named, flight.images, strict=True)]
        _one_concept_each(flight, table)
        others = [name for name in self._table.column_names if name not in _OWN]
        flight.columns = {name: np.array(self._column(name, ""))[lines] for name in others}

        whole, order = self._arrays(flight, lines, problem)
        if self._wrong_about:
            flight.problems.append(self._wrong_about)
        else:
            _describe(flight, self._about)
        if whole:
            flight.row_shape = next(iter(whole.values())).shape[1:]
            _compare_axes(flight, whole)
            if flight.sfreq and len(flight.row_shape) == 2:
                tmin = float(self._about["tmin"])
                flight.times = [round(tmin + k / flight.sfreq, 9) for k in range(flight.row_shape[1])]
            flight.read = lambda rows: _gather(whole, order, rows)
            flight.places = {
                "file": np.array([name for name, _ in order]),
                "row": np.array([row for _, row in order], np.int32),
            }
        count_trials(flight, self.recipe, table)
        return flight

    def _look_at_the_rest(self, flight: TrialFlight) -> None:
        """Add what is wrong beside the table, without knowing what the arrays' rows are."""
        if self._wrong_about:
            flight.problems.append(self._wrong_about)
        else:
            _describe(flight, self._about)
        for path in sorted(self._raw.glob("*.npy")):
            try:
                map_array(path)
            except BadRecording as bad:
                flight.problems.append(Problem.of(bad, path, path.name))

    def _arrays(self, flight: TrialFlight, lines: np.ndarray, problem: Any) -> tuple[dict[str, np.ndarray], list[Any]]:
        """Map the subject's arrays, and return with them the file and row of every trial."""
        files = [self._files[line] for line in lines]
        whole: dict[str, np.ndarray] = {}
        for name in dict.fromkeys(files):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                problem("file", f"{name!r} lies outside the folder", "move it into the folder")
                continue
            try:
                whole[name] = map_array(self._raw / name)
            except BadRecording as bad:
                flight.problems.append(Problem.of(bad, self._raw / name, name))
        if len(whole) < len(set(files)):
            return {}, []
        numbered = self._column("row", "")
        order, seen = [], set()
        next_row = dict.fromkeys(whole, 0)
        mine = set(lines.tolist())
        for line, name in enumerate(self._files):  # lines of other subjects may be of the same file
            if name not in whole:
                continue
            given = number_of(numbered[line], "row")
            if numbered[line] and given is None:
                problem("row", f"{numbered[line]!r} in line {line + 2}", "write a whole number, from 0")
                return {}, []
            row = next_row[name] if given is None else given
            next_row[name] += 1
            if line not in mine:
                continue
            if row >= len(whole[name]) and "row" in self._table.column_names:
                what = f"line {line + 2} is row {row} of {name}, which has {len(whole[name])}"
                problem("row", what, "the table and the array belong to different versions: make both again")
                return {}, []
            if (name, row) in seen:
                problem("row", f"row {row} of {name} a second time in line {line + 2}", "a trial has one line")
                return {}, []
            seen.add((name, row))
            order.append((name, row))
        for name, values in whole.items():
            if "row" not in self._table.column_names and next_row[name] != len(values):
                what = f"{counted(len(values), 'row')}, but {counted(next_row[name], 'line')} of {self._path.name}"
                flight.problems.append(Problem(name, "row", what, "one line per row, or a column 'row'"))
        flight.sources = [identify(name, [self._raw / name]) for name in whole]
        return whole, order

    def plan(self, flight: TrialFlight) -> CutTrials:
        """Return what becomes of the trials."""
        return CutTrials(flight, self.recipe)


def open_dataset(raw: Path, recipe: str) -> Arrays:
    """Open the arrays in ``raw``."""
    return Arrays(raw, read_trial_recipe(recipe, "arrays"))


def map_array(path: Path) -> np.ndarray:
    """Map a ``.npy`` file of numbers, reading none of them.

    Raises
    ------
    BadRecording
        If it is missing, something else, truncated, or holds Python objects, which would run code.
    """
    head = read_head(path)
    if not head.startswith(b"\x93NUMPY"):
        raise BadRecording(f"{path} is not a .npy file", "save it with numpy.save")
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as problem:
        if "object" in str(problem).lower():
            raise BadRecording(
                f"{path} holds Python objects, which could run anything", "save the numbers alone with numpy.save"
            ) from None
        have = path.stat().st_size
        raise BadRecording(f"{path} is truncated or damaged: {have:,} bytes of it", "make or copy it again") from None
    if values.dtype.kind not in "fiu" or values.ndim not in (2, 3):
        raise BadRecording(
            f"{path} holds {values.dtype} {values.shape}",
            "expected numbers, (trial, channel, time) or (trial, voxel)",
        )
    return values


def _gather(whole: dict[str, np.ndarray], order: list[tuple[str, int]], rows: np.ndarray) -> np.ndarray:
    """Return trials from whichever files hold them."""
    first = next(iter(whole.values()))
    out = np.empty((len(rows), *first.shape[1:]), np.float32)
    for k, row in enumerate(rows.tolist()):
        name, place = order[row]
        out[k] = whole[name][place]
    return out


def _read_about(path: Path) -> tuple[dict[str, Any], Problem | None]:
    """Return what ``recording.toml`` says, and what keeps it from being read."""
    if not path.is_file():
        fix = 'it says modality = "eeg", units = "uV", sfreq = 250, tmin = 0.0, ch_names = ["O1", ...]'
        return {}, Problem(path.name, "file", f"no {path}", fix)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), None
    except (ValueError, RecursionError) as problem:
        return {}, Problem(path.name, "file", f"is not TOML: {problem}", "correct the line it names")


def _describe(flight: TrialFlight, about: dict[str, Any]) -> None:
    """Take over what ``recording.toml`` says, and all that is wrong with it."""

    def problem(field: str, what: str, fix: str) -> None:
        flight.problems.append(Problem("recording.toml", field, what, fix))

    flight.modality, flight.units = str(about.get("modality", "")), str(about.get("units", ""))
    for key in sorted(about.keys() - _ABOUT):
        problem(key, "an unknown key", suggest(key, _ABOUT))
    if flight.modality not in _MODALITIES:
        problem("modality", f"it is {flight.modality!r}", f"one of {', '.join(_MODALITIES)}")
    of_voxels = flight.modality == "fmri" or ("rois" in about and flight.modality not in _MODALITIES)
    if of_voxels:
        rois = about.get("rois", {})
        if not isinstance(rois, dict) or not all(map(_are_voxels, rois.values())):
            problem("rois", "not a table of lists of voxels", "write [rois], then V1 = [0, 1, 2]")
        else:
            flight.rois = {str(name): sorted(set(voxels)) for name, voxels in rois.items() if voxels}
        return
    names = about.get("ch_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        problem("ch_names", f"it is {names!r}", 'list the channels: ch_names = ["O1", "Oz", "O2"]')
        names = []
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problem("ch_names", f"it holds {', '.join(twice)} twice", "rename or drop one of them")
    flight.ch_names = list(names)
    if flight.modality == "eeg" and not twice:
        flight.ch_pos = positions(tuple(names))
    for key in ("sfreq", "tmin"):
        value = about.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or (key == "sfreq" and not value > 0):
            problem(key, f"it is {value!r}", _NUMBERS[key])
    if not any(p.field in ("sfreq", "tmin") for p in flight.problems):
        flight.sfreq = float(about["sfreq"])


def _are_voxels(value: Any) -> bool:
    return isinstance(value, list) and all(type(voxel) is int and voxel >= 0 for voxel in value)


def _compare_axes(flight: TrialFlight, whole: dict[str, np.ndarray]) -> None:
    """Compare the shapes of the arrays with each other and with what ``recording.toml`` says."""
    for name, values in whole.items():
        if values.shape[1:] != flight.row_shape:
            what = f"rows of shape {values.shape[1:]}, but {next(iter(whole))} has {flight.row_shape}"
            flight.problems.append(Problem(name, "shape", what, "a subject has one set of channels and times"))
    n_axes = 1 if flight.modality == "fmri" else 2
    if len(flight.row_shape) != n_axes and flight.modality in _MODALITIES:
        axes = "(trial, voxel)" if n_axes == 1 else "(trial, channel, time)"
        what = f"{len(flight.row_shape) + 1} axes, {flight.modality} has {axes}"
        flight.problems.append(Problem(next(iter(whole)), "shape", what, "correct modality in recording.toml"))
    elif n_axes == 1 and any(voxel >= flight.row_shape[0] for voxels in flight.rois.values() for voxel in voxels):
        what = f"a region names a voxel that the {flight.row_shape[0]} of the arrays have not"
        flight.problems.append(Problem("recording.toml", "rois", what, "voxels count from 0, in the arrays' order"))
    elif n_axes == 2 and flight.ch_names and len(flight.ch_names) != flight.row_shape[0]:
        what = f"{counted(len(flight.ch_names), 'name')}, the arrays have {counted(flight.row_shape[0], 'channel')}"
        flight.problems.append(Problem("recording.toml", "ch_names", what, "name every channel, in the arrays' order"))


def _one_concept_each(flight: TrialFlight, table: str) -> None:
    concept: dict[str, str] = {}
    for image, name in zip(flight.images, flight.concepts, strict=True):
        if concept.setdefault(image, name) != name:
            what = f"{image} is {concept[image]!r} and {name!r}"
            flight.problems.append(Problem(table, "concept", what, "an image has one concept"))
            return
