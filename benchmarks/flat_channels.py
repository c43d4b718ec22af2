"""What a channel that is flat for a while in one epoch of 400 changes of all other epochs, in recipe `clean`.

::

    python benchmarks/flat_channels.py [--draws 40]

On simulated recordings of THINGS-EEG2 (63 channels, 1/f spectra shared between channels, 250 Hz, epochs of 1 s), with
the code that `embedctl preprocess` runs. Every draw takes another epoch and channel, and holds the channel at one value
in the raw samples. "Alone": the other epochs are as they were; else all that meet the stretch lose it, as images follow
each other every 200 ms. Also leaves the whole epoch out instead, and the channel pair by pair.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.preprocess.cutting import Cutter, good_channels, lost_samples
from pipelines.preprocess.recipes import read_recipe
from pipelines.preprocess.things_eeg2 import TARGET, Recording, open_recording, presentations
from pipelines.preprocess.whitening import CovarianceSum, inverse_square_root
from pipelines.simulate.recordings import simulate_things_eeg2

N, BEFORE, AFTER = 400, 200, 1000  # epochs; samples of each at 1000 Hz, before and after its onset


class Stuck:
    """A recording in which a channel stays where it is for some samples."""

    def __init__(self, recording: Recording, channel: int, first: int, stop: int) -> None:
        self._recording, self._held = recording, (channel, first, stop)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recording, name)

    def read(self, first: int, stop: int, channels: Sequence[str], scale: float = 1.0) -> np.ndarray:
        """Return samples as they are, but for those that are held."""
        block = self._recording.read(first, stop, channels, scale)
        channel, begins, ends = self._held
        inside = slice(max(begins - first, 0), max(min(ends, stop) - first, 0))
        block[channel, inside] = self._recording.read(begins, begins + 1, [channels[channel]], scale)[0, 0]
        return block


def recorded(folder: Path) -> tuple[Recording, Cutter, np.ndarray]:
    """Return a simulated session, what cuts it, and the onsets of its first epochs."""
    training = [f"training_images/{c:05d}_c{c}/c{c}_{i:02d}s.jpg" for c in range(1, 41) for i in range(10)]
    test = [f"test_images/{c:05d}_t{c}/t{c}_01s.jpg" for c in range(1, 5)]
    rows = {name: np.random.default_rng(k).normal(size=40) for k, name in enumerate(training + test)}
    names = read_recipe("nice").channels
    simulate_things_eeg2(folder, training, test, rows, subjects=[1], sessions=2, test_repetitions=8, ch_names=names)
    recording = open_recording(folder / "sub-01/ses-01/raw_eeg_training.npy")
    shown = presentations(recording)
    onsets = shown.onsets[shown.codes != TARGET]
    return recording, Cutter.of(read_recipe("clean"), recording), onsets[(onsets > 2 * BEFORE)][:N]


def total_of(epochs: np.ndarray, good: np.ndarray | None = None) -> CovarianceSum:
    """Return the sum of covariances, pair by pair where channels are not good."""
    total = CovarianceSum(epochs.shape[1])
    total.add(epochs, np.ones(len(epochs)), good)
    return total


def main(n_draws: int) -> None:
    """Print, for every way, the change of all other epochs."""
    with tempfile.TemporaryDirectory() as folder:
        recording, cutter, onsets = recorded(Path(folder))
        epochs = np.concatenate([part for _, part in cutter.batches(recording, onsets)])
        whitener = inverse_square_root(total_of(epochs).mean())[0]
        white = whitener @ epochs
        sd, largest = white.std(), np.abs(white).max()
        rng = np.random.default_rng(0)
        draws = [(int(rng.integers(20, N - 20)), int(rng.integers(epochs.shape[1]))) for _ in range(n_draws)]

        def changed(epoch: int, channel: int, seconds: float, alone: bool, how: str) -> tuple[float, float, float]:
            first = int(onsets[epoch]) + (300 if seconds < 1 else -BEFORE)
            stop = first + int(1000 * seconds)
            meets = np.flatnonzero((onsets + AFTER > first) & (onsets - BEFORE < stop))
            which = np.array([epoch]) if alone else meets
            held = Stuck(recording, channel, first, stop)
            cut = np.concatenate([cutter.epochs(held, onsets[k : k + 1]) for k in which])
            good = good_channels(cut)
            spoilt = ~good.all(axis=1)
            rest = np.delete(epochs, which, axis=0)
            total = total_of(np.concatenate([rest, cut[~spoilt]]))
            if how == "filled":
                total.add_filled(cut[spoilt], np.ones(spoilt.sum()), good[spoilt], lost_samples(cut, good)[spoilt])
            elif how == "pair by pair":
                total.add(cut[spoilt], np.ones(spoilt.sum()), good[spoilt])
            change = np.abs((inverse_square_root(total.mean())[0] - whitener) @ rest)
            return float(np.sqrt((change**2).mean()) / sd), float(change.max() / sd), float(change.max() / largest)

        for seconds, alone, how in (
            (0.4, True, "filled"),
            (1.2, True, "filled"),
            (1.2, True, "left out"),
            (1.2, True, "pair by pair"),
            (0.4, False, "filled"),
        ):
            found = np.array([changed(*draw, seconds, alone, how) for draw in draws])
            middle, worst = np.median(found, axis=0), found.max(axis=0)
            said = (
                f"{name} {a:.1e} ({b:.1e})"
                for name, a, b in zip(("rms/sd", "most/sd", "most/largest"), middle, worst, strict=True)
            )
            print(
                f"flat for {seconds} s{', alone' if alone else ''}, {how}: {', '.join(said)}  median (worst)",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[2]) if sys.argv[1:2] == ["--draws"] else 40)
