r"""THINGS-EEG1 (Grootswagers et al. 2022, Scientific Data 9:3; OpenNeuro ds003825), a BIDS tree of BrainVision files.

::

    raw/things-eeg1/sub-01/eeg/sub-01_task-rsvp_eeg.vhdr, ..._events.tsv
    raw/things-eeg1/test_images.csv                        where the table does not name the test images

Three things are unlike BIDS and like this dataset only: ``onset`` counts *samples*; ``stim`` has backslashes,
``stimuli\aardvark\aardvark_01b.jpg``; test trials have ``isteststim`` 1 and are numbered by ``teststimnumber``, from
0. Every concept is trained on, the 200 of the test too: those are left out of training, so that the test asks for
concepts never seen. Images follow each other every 100 ms. Cz was the reference and is not there.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.bids import not_brain, sidecar
from pipelines.preprocess.dataset import SPLITS, Problem
from pipelines.preprocess.left_out import left_out, text_column
from pipelines.preprocess.mne_epochs import channel_positions
from pipelines.preprocess.mne_recording import MneRecording, open_with_mne
from pipelines.preprocess.recipes import Recipe, read_recipe
from pipelines.preprocess.recorded import Recorded
from pipelines.preprocess.recording import ImageList, RecordedFlight
from pipelines.preprocess.recording_checks import compare_recordings, short_name, wrong_samples
from pipelines.preprocess.slots import Presentations
from pipelines.preprocess.things_eeg2 import find_subjects, subject_folder
from pipelines.preprocess.trial_tables import missing_columns, number_of, read_trials
from pipelines.preprocess.trials import concept_of
from stores.errors import BadRecording
from stores.names import counted

__all__ = ["ThingsEEG1", "open_dataset"]

_COLUMNS = ("onset", "stim", "isteststim")
_IMAGE = re.compile(r"[^,;\t\"]+\.(?:jpe?g|png)", re.IGNORECASE)
_SOA = 0.1  # s, the design of the experiment


class ThingsEEG1:
    """The recordings of THINGS-EEG1.

    Parameters
    ----------
    raw : Path
        Folder with ``sub-01``, ...
    recipe : Recipe
        How to cut and whiten.
    """

    def __init__(self, raw: Path, recipe: Recipe) -> None:
        self._raw, self.recipe = raw, recipe
        self._subjects = sorted(find_subjects(raw, "eeg/sub-01_task-rsvp_eeg.vhdr"))
        listed = raw / "test_images.csv"
        text = listed.read_text(encoding="utf-8", errors="replace") if listed.is_file() else ""
        self._test_images = [match[0] for line in text.splitlines() if (match := _IMAGE.search(line))]

    def subjects(self) -> list[int]:
        """Return who is there."""
        return self._subjects

    def preflight(self, subject: int) -> RecordedFlight:
        """Return all that is wrong with a subject's recording and its table of events."""
        flight = RecordedFlight(subject)
        folder = subject_folder(self._raw, subject)
        found = sorted(folder.rglob("*_eeg.vhdr"))
        if len(found) != 1:
            what = f"{len(found)} recordings *_eeg.vhdr in it, one is expected"
            flight.problems.append(Problem(folder.name, "file", what, "download the subject again"))
            return flight
        path, raw = found[0], None
        try:
            raw = open_with_mne(path, "read_raw")
        except BadRecording as bad:
            flight.problems.append(Problem.of(bad, path, short_name(path)))
        told_by = sidecar(path, "events")
        try:
            table = read_trials(told_by)
            missing_columns(told_by, table, _COLUMNS)
        except BadRecording as bad:
            flight.problems.append(Problem.of(bad, told_by, short_name(told_by), "table"))
            return flight
        if raw is not None:
            columns = {name: [value or "" for value in table[name].to_pylist()] for name in table.column_names}
            self._events(flight, raw, path, columns, short_name(told_by))
            compare_recordings(flight, self.recipe.channels, short_name)
        return flight

    def _events(self, flight: RecordedFlight, raw: Any, path: Path, table: dict[str, list[str]], where: str) -> None:
        """Say which image was shown at which sample, and what contradicts that."""

        def problem(field: str, what: str, fix: str) -> None:
            flight.problems.append(Problem(where, field, what, fix))

        try:
            onsets = np.array([float(text) for text in table["onset"]])
        except ValueError:
            return problem("onset", "no number in every row", "download the table again")
        sfreq, seconds = float(raw.info["sfreq"]), raw.n_times / raw.info["sfreq"]
        last, soa = float(onsets.max()), float(np.median(np.diff(np.sort(onsets)))) if len(onsets) > 1 else _SOA * sfreq
        if last <= seconds and soa < 0.5 * _SOA * sfreq:
            what = f"the last is {last:,.0f}, the recording has {seconds:,.0f} s and {raw.n_times:,} samples"
            return problem("onset", what, "they are seconds; THINGS-EEG1 counts samples: use --dataset mne")
        if not 0.75 * _SOA < soa / sfreq < 1.5 * _SOA:
            what = f"images follow each other every {1000 * soa / sfreq:.0f} ms at {sfreq:g} Hz, the design says 100 ms"
            problem("sfreq", what, f"the recording should have {soa / _SOA:g} Hz, if this is THINGS-EEG1")
        late = onsets >= raw.n_times
        if late.any():
            what = f"{counted(int(late.sum()), 'event')} after the end of the recording, {raw.n_times:,} samples"
            problem("onset", what, "recording or table is incomplete: download both again")
        images, splits = self._images(flight, table, where)
        if not images or flight.problems:
            return None
        twice = np.flatnonzero(np.diff(np.sort(onsets)) == 0)
        if len(twice):
            several = counted(len(twice), "sample has", "samples have")
            what = f"{several} two events, the first is {np.sort(onsets)[twice[0]]:.0f}"
            problem("onset", what, "an image has one event: download the table again")
        concepts = [concept_of(image) for image in images]
        of_test = {concept for concept, split in zip(concepts, splits, strict=True) if split == "test"}
        removed = [split == "train" and concept in of_test for concept, split in zip(concepts, splits, strict=True)]
        is_target = [text == "1" for text in table.get("istarget", [""] * len(images))]
        away = [k for k, gone in enumerate(removed) if gone]
        columns: dict[str, Any] = {
            "image_id": [images[k] for k in away],
            "concept": [concepts[k] for k in away],
            "split": text_column("train", len(away)),
            "onset_sample": onsets[away].astype(np.int64),
        }
        flight.left_out.append(left_out("image", "training image of a test concept", np.ones(len(away)), columns))
        channels = [name for name in raw.ch_names if name not in {*not_brain(path), *raw.info["bads"]}]
        recording = MneRecording([path], [raw], channels, "eeg")
        flight.problems += [Problem(short_name(path), *rest) for rest in wrong_samples(recording, "samples")]
        flight.ch_pos = dict(zip(channels, channel_positions(raw, channels), strict=True))
        for split in SPLITS:
            rows = [k for k, which in enumerate(splits) if which == split and not removed[k]]
            rows.sort(key=lambda k: onsets[k])
            ids = sorted({images[k] for k in rows})
            code = {image: number for number, image in enumerate(ids, start=1)}
            codes = np.array([code[images[k]] for k in rows], dtype=np.int64)
            often = np.unique(codes, return_counts=True)[1]
            flight.images[split] = ImageList(ids, [concept_of(image) for image in ids], [None] * len(ids))
            flight.recordings[1, split] = recording
            with_target = np.array([is_target[k] for k in rows], dtype=bool)
            flight.events[1, split] = Presentations(onsets[rows].astype(np.int64), codes, with_target)
            flight.counts[f"ses-01 {split}"] = {
                "events": splits.count(split),
                "of test concepts": sum(removed) if split == "train" else 0,
                "with a target": int(with_target.sum()),
                "images": len(ids),
                "fewest repetitions": int(often.min(initial=len(codes))),
                "most repetitions": int(often.max(initial=0)),
            }
            if not rows:
                fix = "a subject needs both splits (sub-01 was published without its test): leave it out"
                problem(split, f"no {split} image in it", fix)
        return None

    def _images(self, flight: RecordedFlight, table: dict[str, list[str]], where: str) -> tuple[list[str], list[str]]:
        """Return image and split of every row."""
        images, splits = [], []
        numbers = table.get("teststimnumber", [""] * len(table["stim"]))
        for row, (stim, is_test, number) in enumerate(zip(table["stim"], table["isteststim"], numbers, strict=True)):
            image = stim.replace("\\", "/") if _IMAGE.fullmatch(stim) else ""
            if is_test not in ("0", "1"):
                what = f"{is_test!r} in line {row + 2}"
                flight.problems.append(Problem(where, "isteststim", what, "0 or 1 is expected"))
                return [], []
            place = number_of(number, "")
            if not image and is_test == "1" and place is not None and place < len(self._test_images):
                image = self._test_images[place].replace("\\", "/")
            if not image:
                what = f"line {row + 2} names no image: {stim!r}"
                fix = "put test_images.csv into the dataset's folder" if is_test == "1" else "download the table again"
                flight.problems.append(Problem(where, "stim", what, fix))
                return [], []
            images.append(image)
            splits.append("test" if is_test == "1" else "train")
        return images, splits

    def plan(self, flight: RecordedFlight) -> Recorded:
        """Return what becomes of the presentations."""
        return Recorded.of(flight, self.recipe, "standard_1020")


def open_dataset(raw: Path, recipe: str) -> ThingsEEG1:
    """Open the recordings in ``raw``."""
    return ThingsEEG1(raw, read_recipe(recipe))
