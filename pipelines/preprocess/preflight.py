"""Everything that can be known to be wrong with a subject before any work is done.

Headers, event channel, the list of images and eight seconds of samples per file are read; *all* problems come
back at once, each with its file, its field and the way out. Counts are compared with the
metadata, never with the size of the published data set.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipelines.preprocess.dataset import SPLITS, Problem
from pipelines.preprocess.left_out import left_out, text_column
from pipelines.preprocess.recording import ImageList, RecordedFlight
from pipelines.preprocess.recording_checks import compare_recordings, short_name, wrong_samples
from pipelines.preprocess.slots import Presentations
from pipelines.preprocess.things_eeg2 import (
    FILES,
    TARGET,
    Recording,
    find_recordings,
    open_recording,
    presentations,
    subject_folder,
)
from stores.errors import BadRecording
from stores.names import counted, subject_name

__all__ = ["preflight"]

_SOA = 0.2  # s, the design of the experiment


def preflight(raw: Path, subject: int, images: dict[str, ImageList], channels: Sequence[str] = ()) -> RecordedFlight:
    """Examine every file of ``subject``, and return all that is wrong.

    Parameters
    ----------
    raw : Path
        Folder of the data set.
    subject : int
        Subject number.
    images : dict
        Image list of each split, from `find_image_lists`; where one could not be read, codes are not compared with it.
    channels : sequence of str
        Channels that must be there; empty for every EEG channel, which must then be the same in all files.

    Raises
    ------
    UnknownName
        If there is no such subject.
    """
    found = RecordedFlight(subject, images=images)
    folder = subject_folder(raw, subject)
    files = find_recordings(folder)
    for split in SPLITS:
        with_split = [number for number in files if split in files[number]]
        if not with_split:
            found.problems.append(
                Problem(
                    short_name(folder), split, f"no ses-XX/{FILES[split][0]} in it", "unpack the subject's archive here"
                )
            )
        for number in range(1, max(files, default=0) + 1):
            if with_split and number not in with_split:
                found.notes.append(
                    f"{subject_name(subject)}: ses-{number:02d} has no {split} recording: fewer repetitions"
                )
        for other in sorted({files[number][split].name for number in with_split} - {FILES[split][0]}):
            found.notes.append(f"{subject_name(subject)}: {other} is taken for {FILES[split][0]}")
    for number, splits in files.items():
        for split, path in splits.items():
            _examine(found, number, split, path, images.get(split))
    compare_recordings(found, channels, short_name)
    unread = {split for number in files for split in files[number] if (number, split) not in found.recordings}
    _count_images(found, images, [split for split in images if split not in unread])
    return found


def _examine(found: RecordedFlight, session: int, split: str, path: Path, images: ImageList | None) -> None:
    name = short_name(path)
    try:
        recording = open_recording(path)
    except BadRecording as problem:
        found.problems.append(Problem.of(problem, path, name))
        return
    found.recordings[session, split] = recording
    found.problems += [Problem(name, *rest) for rest in wrong_samples(recording, "raw_eeg_data")]
    if (wrong := _wrong_codes(recording)) is not None:
        found.problems.append(Problem(name, "stim", *wrong))
        found.events[session, split] = Presentations(np.zeros(0, np.int64), np.zeros(0, np.int64))
        return
    events = presentations(recording)
    found.problems += [Problem(name, *rest) for rest in _wrong_events(recording, events, images)]
    shown = events.select(events.codes != TARGET)
    found.events[session, split] = shown
    targets = events.select(events.codes == TARGET)
    n = len(targets.codes)
    columns = {
        "event_code": targets.codes.astype(np.int32),
        "onset_sample": targets.onsets.astype(np.int64),
        "split": text_column(split, n),
    }
    found.left_out.append(left_out("target", "target", np.full(n, session), columns))
    repetitions = np.unique(shown.codes, return_counts=True)[1]
    found.counts[f"ses-{session:02d} {split}"] = {
        "events": len(events.codes),
        "targets dropped": len(events.codes) - len(shown.codes),
        "images": len(repetitions),
        "fewest repetitions": int(repetitions.min(initial=len(shown.codes))),
        "most repetitions": int(repetitions.max(initial=0)),
    }


def _wrong_codes(recording: Recording) -> tuple[str, str] | None:
    """Return problem and fix if the stim channel holds something that is no code."""
    stim = np.asarray(recording.samples[recording.stim])
    odd = np.flatnonzero(~(stim == np.rint(stim)))
    if len(odd):
        what = f"it holds {stim[odd[0]]:g} at sample {odd[0]}, and a code is a whole number"
        return what, "download the file again"
    if stim.min() < 0:
        return "the codes are negative", "multiply the channel by -1"
    at = np.flatnonzero(stim)
    close = at[1:][(np.diff(at) == 1) & (np.diff(stim[at]) != 0)]
    if len(close):
        what = f"{len(close)} codes begin at the sample after another code, the first at sample {close[0]}"
        return what, "an event is one sample, and the next is zero: download the file again"
    return None


def _wrong_events(
    recording: Recording, events: Presentations, images: ImageList | None
) -> Iterator[tuple[str, str, str]]:
    """Yield field, problem and fix for everything implausible in the events."""
    if not len(events.codes):
        yield "stim", "no event in it", "download the file again"
        return
    total = len(images.ids) if images else np.inf
    outside = (events.codes != TARGET) & ((events.codes < 1) | (events.codes > total))
    if images and outside.any():
        codes = np.unique(events.codes[outside])
        listed = ", ".join(map(str, codes[:5])) + (", ..." if len(codes) > 5 else "")
        fix = "the metadata and the recording belong to different image sets"
        if TARGET - 2**16 in codes:
            fix = f"{TARGET - 2**16} is the target {TARGET} wrapped to 16 bits: restore it, or download the file again"
        yield "stim", f"{counted(outside.sum(), 'event')} with codes outside 1..{total}: {listed}", fix
    soa = float(np.median(np.diff(events.onsets))) / recording.sfreq if len(events.onsets) > 1 else _SOA
    if not 0.75 * _SOA < soa < 1.5 * _SOA:
        yield (
            "sfreq",
            f"images follow each other every {soa * 1000:.0f} ms at {recording.sfreq:g} Hz, the design says 200 ms",
            f"sfreq should be {recording.sfreq * soa / _SOA:g}, if the recording is THINGS-EEG2",
        )


def _count_images(found: RecordedFlight, images: dict[str, ImageList], splits: Sequence[str]) -> None:
    """Compare the images shown over all sessions with the metadata, in splits whose every file could be read."""
    for split in splits:
        codes = [events.codes for (_, where), events in found.events.items() if where == split]
        if not codes:
            continue
        total = len(images[split].ids)
        shown = np.unique(np.concatenate(codes))
        shown = shown[(shown >= 1) & (shown <= total)]
        found.counts[f"all {split}"] = {"images in the metadata": total, "images shown": len(shown)}
        if len(shown) < total:
            never = np.setdiff1d(np.arange(1, total + 1), shown)
            examples = ", ".join(images[split].ids[code - 1] for code in never[:3])
            found.notes.append(
                f"{subject_name(found.subject)}: {len(never)} of {total} {split} images never shown, such as {examples}"
            )
