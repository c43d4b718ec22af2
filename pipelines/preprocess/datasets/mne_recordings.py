"""Continuous recordings of dataset `mne`: their runs, their events and what is wrong with them."""

import re
from collections import Counter
from os.path import lexists
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.preprocess.bids import not_brain, sidecar
from pipelines.preprocess.dataset import SPLITS, Problem
from pipelines.preprocess.datasets.mne_named import IMAGE, Named, kinds_of, most_of
from pipelines.preprocess.left_out import left_out
from pipelines.preprocess.mne_epochs import channel_positions
from pipelines.preprocess.mne_recording import MneRecording, open_with_mne
from pipelines.preprocess.recipes import Recipe
from pipelines.preprocess.recorded import Recorded
from pipelines.preprocess.recording import ImageList, RecordedFlight
from pipelines.preprocess.recording_checks import compare_recordings, wrong_samples
from pipelines.preprocess.slots import Presentations
from pipelines.preprocess.trial_tables import read_trials
from pipelines.preprocess.trials import concept_of
from stores.errors import BadRecording
from stores.names import counted, subject_name

__all__ = ["RecordingFiles"]

_ROUNDING = 2.0  # samples between onset and sample of an event: some count from 1, and seconds are rounded


class RecordingFiles(Named[Recipe]):
    """Continuous recordings."""

    def examine(self, subject: int) -> RecordedFlight:
        """Return all that is wrong with a subject's recordings and their events."""
        flight = RecordedFlight(subject)
        opened: dict[int, list[tuple[Path, Any]]] = {}
        session_of = self.sessions_of(flight)
        for path in self.files_of(subject):
            try:
                opened.setdefault(session_of[path], []).append((path, open_with_mne(path, "read_raw")))
            except BadRecording as bad:
                flight.problems.append(Problem.of(bad, path, self.short(path)))
        runs = [run for session in opened.values() for run in session]
        if not runs:
            return flight
        unwanted = {name for path, _ in runs for name in not_brain(path)} | {
            name for _, raw in runs for name in raw.info["bads"]
        }
        kinds = kinds_of(runs[0][1])
        kind = most_of(kinds, ("eeg", "mag"))
        modality = "eeg" if kind == "eeg" else "meg"
        channels = [name for name in kinds.get(kind, []) if name not in unwanted]
        if kinds.get("eeg") and kinds.get("mag"):
            what = f"{len(kinds['eeg'])} EEG channels and {len(kinds['mag'])} magnetometers"
            flight.notes.append(f"{subject_name(subject)}: {what}: the more numerous are taken")
        if not channels:
            flight.problems.append(
                Problem(self.short(runs[0][0]), "channels", "no EEG and no magnetometer in it", "set their types")
            )
            return flight
        twice = [name.removesuffix("-0") for name in channels if name.endswith("-0") and f"{name[:-2]}-1" in channels]
        if twice:  # MNE has numbered them
            what = f"it holds {', '.join(twice)} twice"
            flight.problems.append(Problem(self.short(runs[0][0]), "ch_names", what, "rename or drop one of them"))
        shown = {
            session: [self._events(flight, (session, run), *which) for run, which in enumerate(of_session, start=1)]
            for session, of_session in sorted(opened.items())
        }
        self._number_images(flight, shown)
        for session, of_session in sorted(opened.items()):
            self._join(flight, session, of_session, shown[session], channels, modality)
        compare_recordings(flight, self.recipe.channels, self.short)
        flight.modality, flight.runs = modality, True
        flight.ch_pos = dict(zip(channels, channel_positions(runs[0][1], channels), strict=True))
        return flight

    def _events(
        self, flight: RecordedFlight, where_in: tuple[int, int], path: Path, raw: Any
    ) -> list[tuple[int, str, str]]:
        """Return sample, image and split of every image onset in a run; ``where_in`` is session and number of it."""
        where = self.short(path)
        beside = sidecar(path, "events")
        if lexists(beside):
            where = self.short(beside)
            try:
                columns = read_trials(beside)
            except BadRecording as bad:
                flight.problems.append(Problem.of(bad, beside, where))
                return []
            table = {name: [v or "" for v in columns[name].to_pylist()] for name in columns.column_names}
            samples = _samples(flight, where, table, raw)
        else:
            # MNE puts BrainVision's kind of marker in front.
            said = [re.sub("^(Comment|Stimulus)/", "", str(text)) for text in raw.annotations.description]
            table = {"image": [text if IMAGE.fullmatch(text) else "" for text in said], "trial_type": said}
            noted = raw.annotations
            samples = raw.time_as_index(noted.onset, use_rounding=True, origin=noted.orig_time)
            if not any(table["image"]):
                what = f"no {beside.name} beside it, and no annotation that ends like an image file"
                flight.problems.append(Problem(where, "events", what, "add the table of events, with a column image"))
                return []
        images, splits = self.shown(flight, where, table)
        if samples is None or not images:
            return []
        named = [(int(s), i, w) for s, i, w in zip(samples, images, splits, strict=True) if i]
        session, run = where_in
        other = [row for row, image in enumerate(images) if not image]
        columns = {
            "onset_sample": pa.array([int(samples[row]) if samples[row] >= 0 else None for row in other], pa.int64()),
            "run": np.full(len(other), run, np.int16),
            "event": pa.array([table.get("trial_type", images)[row] or None for row in other], pa.string()),
        }
        flight.left_out.append(left_out("event", "no image", np.full(len(other), session), columns))
        counts = {"events": len(images), "without an image": len(images) - len(named)}
        flight.counts[self.short(path)] = counts
        outside = [sample for sample, _, _ in named if not 0 <= sample < raw.n_times]
        if outside:
            several = counted(len(outside), "image is", "images are")
            what = f"{several} shown outside of the recording, which has {raw.n_times:,} samples"
            fix = "recording or table is incomplete, or of another recording: get both again"
            flight.problems.append(Problem(where, "onset", f"{what}, the first at {outside[0]:,}", fix))
        often = [sample for sample, n in Counter(sample for sample, _, _ in named).items() if n > 1]
        if often:
            what = f"{counted(len(often), 'sample has', 'samples have')} two events, the first is {often[0]}"
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
                where = subject_name(flight.subject)
                flight.problems.append(Problem(where, split, what, "a subject needs both splits: leave it out"))
        both = set(flight.images["train"].ids) & set(flight.images["test"].ids)
        if both:
            what = f"{counted(len(both), 'image is', 'images are')} in both train and test, such as {min(both)}"
            flight.problems.append(
                Problem(subject_name(flight.subject), "split", what, "a test image must never be trained on")
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
                what = f"{raw.info['sfreq']:g} Hz, but {self.short(runs[0][0])} has {first.info['sfreq']:g} Hz"
                flight.problems.append(Problem(self.short(path), "sfreq", what, "use one rate per subject"))
            absent = [name for name in channels if name not in raw.ch_names]
            if absent:
                lacking = counted(len(absent), "channel is", "channels are")
                what = f"of the subject's first recording {lacking} absent: {', '.join(absent[:5])}"
                flight.problems.append(Problem(self.short(path), "ch_names", what, "mark them bad in all recordings"))
        if flight.problems:
            return
        paths, raws = zip(*runs, strict=True)
        recording = MneRecording(paths, raws, channels, modality)
        if modality == "eeg":
            where = self.short(runs[0][0])
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
    """Return the sample of every event: its column ``sample``, else ``onset`` in s. Where both are, they must agree."""
    columns = [name for name in ("sample", "onset") if any(text.strip() for text in table.get(name, []))]
    try:
        told = {name: np.array([float(text or "nan") for text in table[name]]) for name in columns}
    except ValueError:
        columns = []
    if not columns:
        flight.problems.append(Problem(where, "onset", "no number in every row", "onset is in s from the first sample"))
        return None
    seconds, sfreq = raw.n_times / raw.info["sfreq"], raw.info["sfreq"]
    if len(columns) == 2:
        apart = np.abs(told["sample"] - told["onset"] * sfreq)
        odd = np.flatnonzero(apart > _ROUNDING)
        if len(odd):
            row = int(odd[0])
            what = f"row {row + 1} is at {told['onset'][row]:g} s and at sample {told['sample'][row]:g}"
            fix = f"at {sfreq:g} Hz these are not the same: correct one of the columns, or remove it"
            flight.problems.append(Problem(where, "onset", what, fix))
            return None
    if columns[0] == "sample":
        return np.nan_to_num(told["sample"], nan=-1).astype(np.int64)
    last = float(np.nanmax(told["onset"], initial=0.0))
    if last > 2 * seconds and last <= raw.n_times * 1.01:
        what = f"the last is {last:,.0f}, the recording has {seconds:,.0f} s and {raw.n_times:,} samples"
        fix = f"they are samples: divide them by {sfreq:g}, or call the column sample"
        flight.problems.append(Problem(where, "onset", what, fix))
        return None
    return np.rint(np.nan_to_num(told["onset"], nan=-1) * sfreq).astype(np.int64)
