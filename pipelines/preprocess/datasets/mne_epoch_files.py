"""Epochs of dataset `mne` that MNE has saved: which image each shows, and what is wrong with them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.cut_trials import CutTrials
from pipelines.preprocess.dataset import Problem
from pipelines.preprocess.datasets.mne_named import IMAGE, SI, Named, kinds_of, most_of
from pipelines.preprocess.identity import identify
from pipelines.preprocess.left_out import left_out, text_column
from pipelines.preprocess.mne_epochs import channel_positions, read_epochs
from pipelines.preprocess.mne_recording import files_of, open_with_mne
from pipelines.preprocess.trial_recipes import TrialRecipe
from pipelines.preprocess.trial_tables import number_of
from pipelines.preprocess.trials import TrialFlight, concept_of, count_trials
from stores.errors import BadRecording
from stores.names import counted

__all__ = ["EpochFiles"]


class EpochFiles(Named[TrialRecipe]):
    """Epochs saved by MNE."""

    def examine(self, subject: int) -> TrialFlight:
        """Return all that is wrong with a subject's epochs and the images they name."""
        flight = TrialFlight(subject, packages=("embedctl", "numpy", "mne"))
        opened, sessions, keep, files = [], [], [], []
        session_of = self.sessions_of(flight)
        for path in self.files_of(subject):
            where = self.short(path)
            try:
                epochs = open_with_mne(path, "read_epochs")
            except BadRecording as bad:
                flight.problems.append(Problem.of(bad, path, where))
                continue
            table = _metadata(epochs)
            images, splits = self.shown(flight, where, table)
            if not images:
                continue
            given = [number_of(text, "ses") for text in table.get("session", [])]
            shown = np.flatnonzero([bool(image) for image in images])
            opened.append((epochs, path))
            keep += [(len(opened) - 1, int(row)) for row in shown]
            flight.images += [images[row] for row in shown]
            flight.splits += [splits[row] for row in shown]
            told = [given[row] if given else None for row in shown.tolist()]
            sessions += [session_of[path] if number is None else number for number in told]
            other = np.flatnonzero([not image for image in images])
            of = np.array([session_of[path] if not given or given[row] is None else given[row] for row in other])
            place = {"file": text_column(where, len(other)), "row": other.astype(np.int32)}
            flight.left_out.append(left_out("event", "no image", of, place))
            files += [where] * len(shown)
            dropped = {"without an image": len(images) - len(shown)}
            flight.dropped = dict(Counter(flight.dropped) + Counter(dropped))
            flight.sources.append(identify(where, files_of(path)))
        flight.concepts = [concept_of(image) for image in flight.images]
        flight.sessions = np.array(sessions, dtype=np.int64)
        flight.places = {"file": np.array(files), "row": np.array([row for _, row in keep], np.int32)}
        flight.order = ("file", "row")
        if opened:
            self._describe(flight, opened, keep)
            count_trials(flight, self.recipe, self.short(opened[0][1]))
        return flight

    def _describe(self, flight: TrialFlight, opened: list[tuple[Any, Path]], keep: list[tuple[int, int]]) -> None:
        """Take over channels and times of the first file, compare the others with it, and make the reader."""
        first = opened[0][0]
        kinds = kinds_of(first)
        kind = most_of(kinds, SI)
        if not kinds.get(kind):
            flight.problems.append(
                Problem(self.short(opened[0][1]), "channels", "no EEG and no MEG channel in it", "set their types")
            )
            return
        factor, flight.units = SI[kind]
        flight.modality = "eeg" if kind == "eeg" else "meg"
        flight.ch_names, flight.sfreq = kinds[kind], float(first.info["sfreq"])
        flight.times = [round(float(t), 9) for t in first.times]
        flight.row_shape = (len(flight.ch_names), len(flight.times))
        flight.ch_pos = channel_positions(first, flight.ch_names)
        for epochs, path in opened[1:]:
            absent = [name for name in flight.ch_names if name not in epochs.ch_names]
            if absent:
                lacking = counted(len(absent), "channel is", "channels are")
                what = f"of {self.short(opened[0][1])} {lacking} absent: {', '.join(absent[:5])}"
                flight.problems.append(Problem(self.short(path), "ch_names", what, "use one set per subject"))
            if len(epochs.times) != len(first.times) or not np.allclose(epochs.times, first.times):
                what = f"other times than {self.short(opened[0][1])}"
                flight.problems.append(Problem(self.short(path), "times", what, "crop and resample them alike"))
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
    return {"image": [name if IMAGE.fullmatch(name) else "" for name in names]}
