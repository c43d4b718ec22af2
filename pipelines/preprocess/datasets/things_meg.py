"""THINGS-MEG (Hebart et al. 2023, eLife 12:e82580; OpenNeuro ds004212), from its preprocessed epochs.

::

    raw/things-meg/preprocessed_P1-epo.fif, ...-epo-1.fif, ...   (in derivatives/preprocessed/ as well)
    raw/things-meg/sample_attributes_P1.csv                      one row per epoch (in sourcedata/ as well)

The values are the authors' z-scores: in each epoch and channel, against its own -0.1 to 0 s. ``image_path`` says what
was shown; ``image_nr`` and ``things_image_nr`` are two different numberings, and neither is used. Test is 200 images
shown 12 times; their concepts are left out of training, which leaves 1,654 concepts x 12 images. Catch trials are left
out.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.preprocess.cut_trials import CutTrials
from pipelines.preprocess.dataset import Problem
from pipelines.preprocess.identity import identify
from pipelines.preprocess.left_out import left_out
from pipelines.preprocess.mne_epochs import channel_positions, read_epochs
from pipelines.preprocess.mne_recording import files_of, open_with_mne
from pipelines.preprocess.trial_recipes import TrialRecipe, read_trial_recipe
from pipelines.preprocess.trial_tables import missing_columns, number_of, read_trials
from pipelines.preprocess.trials import TrialFlight, concept_of, count_trials
from stores.errors import BadRecording, UnknownName
from stores.names import counted, subject_name

__all__ = ["ThingsMEG", "open_dataset"]

_CATCH_CODE = 999999  # what NaN became in the events
_SPLITS = {"exp": "train", "test": "test", "catch": ""}
_COLUMNS = ("trial_type", "image_path", "things_image_nr", "session_nr", "run_nr")
_PLAUSIBLE_SD = (0.02, 200.0)  # of a z-score
_DISAGREEING = (
    0.05  # more trials than this with another number in the events, and table and epochs do not belong together
)


class ThingsMEG:
    """The preprocessed epochs of THINGS-MEG.

    Parameters
    ----------
    raw : Path
        Folder that holds them, at whatever depth.
    recipe : TrialRecipe
        What becomes of the epochs.
    """

    def __init__(self, raw: Path, recipe: TrialRecipe) -> None:
        if not raw.is_dir():
            raise BadRecording(f"no folder {raw}", "put the epochs there, or name their folder with --raw")
        self._raw, self.recipe = raw, recipe
        self._epochs = _numbered(raw, r"preprocessed_P(\d+)-epo\.fif")
        self._tables = _numbered(raw, r"sample_attributes_P(\d+)\.csv")
        if not self._epochs:
            raise BadRecording(f"{raw} holds no preprocessed_P1-epo.fif", "see 'embedctl datasets show things-meg'")

    def subjects(self) -> list[int]:
        """Return who is there."""
        return sorted(self._epochs)

    def preflight(self, subject: int) -> TrialFlight:
        """Return all that is wrong with a subject's epochs and their table."""
        if subject not in self._epochs:
            known = ", ".join(map(str, self.subjects()))
            raise UnknownName(f"no subject {subject} in {self._raw}", f"there: {known}; see --subject")
        path, flight = self._epochs[subject], TrialFlight(subject, packages=("embedctl", "numpy", "mne"))
        flight.modality, flight.units = "meg", "sd of baseline"
        epochs = table = None
        try:
            epochs = open_with_mne(path, "read_epochs")
        except BadRecording as bad:
            flight.problems.append(Problem.of(bad, path, path.name))
        told_by = self._tables.get(subject, path.with_name(f"sample_attributes_P{subject}.csv"))
        try:
            table = read_trials(told_by)
            missing_columns(told_by, table, _COLUMNS)
        except BadRecording as bad:
            flight.problems.append(Problem.of(bad, told_by, told_by.name, "table"))
            table = None
        if table is not None:
            columns = {name: [value or "" for value in table[name].to_pylist()] for name in _COLUMNS}
            self._identify(flight, epochs, columns, told_by)
        if epochs is not None:
            self._describe(flight, epochs, path)
        if epochs is not None and table is not None:
            count_trials(flight, self.recipe, told_by.name)
        return flight

    def _identify(self, flight: TrialFlight, epochs: object, table: dict[str, list[str]], told_by: Path) -> None:
        """Say which epoch shows which image in which session, and what contradicts that."""

        def problem(field: str, what: str, fix: str) -> None:
            flight.problems.append(Problem(told_by.name, field, what, fix))

        kinds = table["trial_type"]
        odd = sorted(set(kinds) - set(_SPLITS))
        if odd:
            problem("trial_type", f"it holds {', '.join(map(repr, odd[:3]))}", "exp, test and catch are known")
        images = [image.replace("\\", "/") for image in table["image_path"]]
        nameless = [row for row, kind in enumerate(kinds) if _SPLITS.get(kind) and not images[row]]
        if nameless:
            problem(
                "image_path",
                f"{counted(len(nameless), 'trial')} without one, first in line {nameless[0] + 2}",
                "download it again",
            )
        sessions = [number_of(text, "ses") for text in table["session_nr"]]
        if None in sessions:
            row = sessions.index(None)
            problem("session_nr", f"{table['session_nr'][row]!r} in line {row + 2}", "a whole number is expected")
        if epochs is not None:
            _compare_codes(flight, epochs.events[:, 2], table["things_image_nr"], told_by.name)  # type: ignore[attr-defined]
        splits = [_SPLITS.get(kind, "") for kind in kinds]
        concepts = [concept_of(image) for image in images]
        of_test = {concept for concept, split in zip(concepts, splits, strict=True) if split == "test"}
        removed = [split == "train" and concept in of_test for concept, split in zip(concepts, splits, strict=True)]
        kept = [row for row, split in enumerate(splits) if split and not removed[row]]
        flight.dropped = {"catch trials": kinds.count("catch"), "training trials of test concepts": sum(removed)}
        flight.images, flight.concepts = [images[row] for row in kept], [concepts[row] for row in kept]
        flight.splits = [splits[row] for row in kept]
        flight.sessions = np.array([sessions[row] or 0 for row in kept], dtype=np.int64)
        flight.columns = {
            "epoch": np.array(kept, dtype=np.int32),
            "run": np.array([number_of(table["run_nr"][row], "run") or 0 for row in kept], dtype=np.int16),
            "things_image_nr": np.array([number_of(table["things_image_nr"][row], "") or 0 for row in kept], np.int32),
        }
        flight.order = ("epoch",)
        for kind, why, rows in (
            ("catch", "catch trial", [row for row, word in enumerate(kinds) if word == "catch"]),
            ("image", "training image of a test concept", np.flatnonzero(removed).tolist()),
        ):
            columns: dict[str, Any] = {
                "image_id": pa.array([images[row] or None for row in rows], pa.string()),
                "concept": pa.array([concepts[row] or None for row in rows], pa.string()),
                "split": pa.array([splits[row] or None for row in rows], pa.string()),
                "epoch": np.array(rows, dtype=np.int32),
                "run": np.array([number_of(table["run_nr"][row], "run") or 0 for row in rows], dtype=np.int16),
            }
            flight.left_out.append(left_out(kind, why, np.array([sessions[row] or 0 for row in rows]), columns))
        if epochs is not None:
            keep = [(0, row) for row in kept]
            flight.read = lambda rows: read_epochs([epochs], keep, rows, flight.ch_names, 1.0)

    def _describe(self, flight: TrialFlight, epochs: object, path: Path) -> None:
        """Take over channels and times, and look at the unit."""
        names, kinds = epochs.ch_names, epochs.get_channel_types()  # type: ignore[attr-defined]
        flight.ch_names = [name for name, kind in zip(names, kinds, strict=True) if kind == "mag"]
        if not flight.ch_names:
            flight.problems.append(Problem(path.name, "channels", "no magnetometer in it", "download it again"))
            return
        flight.times = [round(float(t), 9) for t in epochs.times]  # type: ignore[attr-defined]
        flight.sfreq = float(epochs.info["sfreq"])  # type: ignore[attr-defined]
        flight.row_shape = (len(flight.ch_names), len(flight.times))
        flight.ch_pos = channel_positions(epochs, flight.ch_names)
        n = len(epochs)  # type: ignore[arg-type]
        some = np.unique(np.linspace(0, n - 1, min(n, 10)).astype(int))
        values = read_epochs([epochs], [(0, row) for row in range(n)], some, flight.ch_names, 1.0)
        sd = float(np.median(values.std(axis=2)))
        if not _PLAUSIBLE_SD[0] < sd < _PLAUSIBLE_SD[1]:
            what = f"a channel typically varies by {sd:.2g} within an epoch; z-scores vary by about 1"
            fix = "these are not the preprocessed epochs of THINGS-MEG: --dataset mne takes any MEG"
            flight.problems.append(Problem(path.name, "data", what, fix))
        flight.sources = [identify(path.name, files_of(path))]

    def plan(self, flight: TrialFlight) -> CutTrials:
        """Return what becomes of the epochs."""
        return CutTrials(flight, self.recipe)


def open_dataset(raw: Path, recipe: str) -> ThingsMEG:
    """Open the epochs in ``raw``."""
    return ThingsMEG(raw, read_trial_recipe(recipe, "meg"))


def _numbered(raw: Path, pattern: str) -> dict[int, Path]:
    found = {int(match[1]): path for path in sorted(raw.rglob("*_P*")) if (match := re.fullmatch(pattern, path.name))}
    return dict(sorted(found.items()))


def _compare_codes(flight: TrialFlight, codes: np.ndarray, numbers: list[str], told_by: str) -> None:
    """Compare the events of the epochs with the table, row by row."""
    if len(codes) != len(numbers):
        what = f"{counted(len(numbers), 'line')}, but {counted(len(codes), 'epoch')}"
        fix = "is a part missing (-epo-1.fif, -epo-2.fif, ...)? download both again"
        flight.problems.append(Problem(told_by, "table", what, fix))
        return
    said = np.array([number_of(text, "") or _CATCH_CODE for text in numbers])
    differ = np.flatnonzero(said != codes)
    if not len(differ):
        return
    first = f"line {differ[0] + 2} says {said[differ[0]]}, its epoch {codes[differ[0]]}"
    other = "another things_image_nr than"
    what = f"{counted(len(differ), f'trial has {other} its epoch', f'trials have {other} their epoch')}: {first}"
    if len(differ) > _DISAGREEING * len(codes):
        fix = "the table belongs to other epochs, or one is in another order: download both again"
        flight.problems.append(Problem(told_by, "things_image_nr", what, fix))
    else:
        flight.notes.append(f"{subject_name(flight.subject)}: {what}; the table is believed")
