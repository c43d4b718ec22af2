"""What can be wrong with any continuous recording, whatever its format: units, channels, rates, copies."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.dataset import Problem
from pipelines.preprocess.recording import RecordedFlight, Recording

__all__ = ["compare_recordings", "short_name", "wrong_samples"]

_PLAUSIBLE_SD = (0.5e-6, 500e-6)  # V


def short_name(path: Path) -> str:
    """Return the end of a path that identifies it: ``sub-01/ses-02/raw_eeg_test.npy``."""
    parts = path.parts
    starts = [i for i, part in enumerate(parts) if re.fullmatch(r"sub-?[0-9A-Za-z]+", part)]
    return "/".join(parts[starts[-1] if starts else -1 :])


def wrong_samples(recording: Recording, field: str) -> Iterator[tuple[str, str, str]]:
    """Yield field, problem and fix if a few seconds spread over the recording are not in volts."""
    length = int(recording.sfreq)
    starts = np.linspace(0, max(recording.n_samples - length, 0), 8).astype(int)
    channels = list(recording.rows)
    with np.errstate(invalid="ignore"):
        spread = [recording.read(a, min(a + length, recording.n_samples), channels).std(axis=1) for a in starts]
    finite = np.concatenate(spread)[np.isfinite(np.concatenate(spread))]
    sd = float(np.median(finite)) if len(finite) else 0.0
    if not _PLAUSIBLE_SD[0] < sd < _PLAUSIBLE_SD[1]:
        what = f"a channel typically varies by {sd:.2g} V within a second; EEG varies by 1e-6 to 1e-4 V"
        if sd:
            factor = 1000.0 ** round(np.log10(sd / 1e-5) / 3)
            yield field, what, f"divide by {factor:g}: the samples seem to be in another unit"
        else:
            yield field, what, "the recording is empty: download it again"


def compare_recordings(found: RecordedFlight, channels: Sequence[str], short: Callable[[Path], str]) -> None:
    """Compare the files of a subject with each other."""
    if not found.recordings:
        return
    usual = _usual([recording.sfreq for recording in found.recordings.values()])
    rows = set(_usual([tuple(sorted(recording.rows)) for recording in found.recordings.values()]))
    trains: dict[bytes, str] = {}
    looked_at: set[int] = set()  # both splits of a session may be in one recording
    for key, recording in found.recordings.items():
        name = short(recording.path)
        train = found.events[key].onsets.tobytes() + found.events[key].codes.tobytes()
        if len(train) and train in trains:
            what = f"the same events at the same samples as {trains[train]}"
            found.problems.append(Problem(name, "stim", what, "one of the two is a copy: download it again"))
        trains.setdefault(train, name)
        if id(recording) in looked_at:
            continue
        looked_at.add(id(recording))
        absent = [channel for channel in channels if channel not in recording.rows]
        if absent:
            of = f"{len(absent)} of the recipe's {len(channels)} channels"
            what = f"{of} {'is' if len(absent) == 1 else 'are'} absent: {_some(absent)}"
            fix = "use --recipe clean, or name in a recipe of your own only channels that are there"
            found.problems.append(Problem(name, "ch_names", what, fix))
        elif not channels and set(recording.rows) != rows:
            what = f"other channels than most of its files: {_some(sorted(set(recording.rows) ^ rows))}"
            found.problems.append(Problem(name, "ch_names", what, "name the common ones in a recipe of your own"))
        if recording.sfreq != usual:
            what = f"{recording.sfreq:g} Hz, but most of its files have {usual:g} Hz"
            found.problems.append(Problem(name, "sfreq", what, "download the file again"))


def _some(names: Sequence[str]) -> str:
    """Return the first five names, and whether there are more."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _usual(values: Sequence[Any]) -> Any:
    """Return the value that most have; of several, the one that is met first."""
    return Counter(values).most_common(1)[0][0]
