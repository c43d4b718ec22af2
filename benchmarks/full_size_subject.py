"""A subject of THINGS-EEG2 in full size, from raw files to the store: time and memory.

::

    python benchmarks/full_size_subject.py [FOLDER] [--recipe clean]

Writes four sessions of 64 x 5,450,560 (training) and 64 x 1,362,640 samples (test) with the published numbers of events
into FOLDER (a temporary one by default): 14 GB, and 5 GB for the epochs; both are removed in the end. The samples are
1/f noise of four minutes, repeated in another order. Limit: 2 GB of memory, mapped file pages aside.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from pipelines.cores import n_cores
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.recipes import read_recipe
from pipelines.preprocess.request import PreprocessRequest
from pipelines.simulate.raw_file import raw_file

CONCEPTS, PER_CONCEPT, TESTS, SESSIONS = 1654, 10, 200, 4
SAMPLES = {"training": 5_450_560, "test": 1_362_640}
SHORT = 2**18  # samples of noise that are repeated


def write_raw(raw: Path) -> None:
    """Write all sessions of one subject."""
    rng = np.random.default_rng(0)
    raw.mkdir(parents=True)
    training = [f"{c:05d}_c{c:04d}" for c in range(1, CONCEPTS + 1) for _ in range(PER_CONCEPT)]
    tests = [f"{c:05d}_t{c:04d}" for c in range(1, TESTS + 1)]
    table = {
        "train_img_concepts": training,
        "train_img_files": [f"{folder[6:]}_{i % PER_CONCEPT:02d}s.jpg" for i, folder in enumerate(training)],
        "test_img_concepts": tests,
        "test_img_files": [f"{folder[6:]}_01s.jpg" for folder in tests],
    }
    np.save(raw / "image_metadata.npy", table, allow_pickle=True)  # type: ignore[arg-type]
    noise = one_over_f(rng)
    for session in range(1, SESSIONS + 1):
        if session % 2:
            order = rng.permutation(CONCEPTS)
        half = order[: CONCEPTS // 2] if session % 2 else order[CONCEPTS // 2 :]
        images = 1 + (half[:, None] * PER_CONCEPT + np.arange(PER_CONCEPT)).ravel()
        for part, codes, times, more, targets in (
            ("training", images, 2, 170, 90), ("test", np.arange(1, TESTS + 1), 20, 56, 24)
        ):  # fmt: skip
            shown = np.concatenate([np.tile(codes, times), rng.choice(codes, more)])
            shown = np.insert(rng.permutation(shown), rng.integers(1, len(shown), targets), 99999)
            path = raw / f"sub-01/ses-{session:02d}/raw_eeg_{part}.npy"
            write_recording(path, SAMPLES[part], shown, noise, rng)
            print(f"{path.parent.name} {part}: {len(shown):,} events, {path.stat().st_size / 1e9:.2f} GB", flush=True)


def one_over_f(rng: np.random.Generator) -> np.ndarray:
    """Return noise of 10 microvolts whose amplitude falls with frequency, mostly common to the channels, (63, n)."""
    spectrum = rng.standard_normal((71, SHORT // 2 + 1)) + 1j * rng.standard_normal((71, SHORT // 2 + 1))
    frequency = np.fft.rfftfreq(SHORT, 1e-3)
    waves = np.fft.irfft(np.where((frequency > 0.1) & (frequency < 100), spectrum / np.maximum(frequency, 0.1), 0))
    waves = waves[:63] * 0.25 + rng.standard_normal((63, 8)) @ waves[63:] / 3
    found: np.ndarray = 1e-5 * waves / waves.std(axis=1, keepdims=True)
    return found


def write_recording(path: Path, n_samples: int, shown: np.ndarray, noise: np.ndarray, rng: np.random.Generator) -> None:
    """Write one file: sequences of 20 images every 200 ms, pauses between them, row after row."""
    names = list(read_recipe("nice").channels)
    place = np.arange(len(shown))
    pause = (n_samples - 6000 - 200 * len(shown)) // (len(shown) // 20 + 1)
    starts = rng.integers(0, SHORT // 2, -(-n_samples // (SHORT // 2)))  # where each repeat of the noise begins
    described = {"ch_names": [*names, "stim"], "ch_types": ["eeg"] * 63 + ["stim"], "sfreq": 1000}
    with raw_file(path, (64, n_samples), described) as samples:
        for row in range(63):
            whole = np.concatenate([noise[row, at : at + SHORT // 2] for at in starts])[:n_samples]
            samples[row] = whole + rng.uniform(-1e-3, 1e-3)
        samples[-1, 3000 + 200 * place + pause * (place // 20)] = shown


class PeakMemory:
    """The most anonymous memory this process has while it is open, bytes: mapped pages of files are not counted."""

    def __enter__(self) -> "PeakMemory":
        self.bytes, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            self.bytes = max(self.bytes, *(1024 * int(x.split()[1]) for x in lines if x.startswith("RssAnon")))


def main(folder: Path, recipe: str) -> int:
    raw, store = folder / "raw", folder / "epochs.zarr"
    try:
        write_raw(raw)
        wall, cpu = time.perf_counter(), time.process_time()
        with PeakMemory() as peak:
            report = preprocess(PreprocessRequest(dataset="things-eeg2", raw=raw, store=store, recipe=recipe))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        line = report.subjects[0]
        size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
        print(f"recipe {recipe}, {n_cores()} cores: {line.train[0]:,} x {line.train[1]} training, {line.test[0]} x "
              f"{line.test[1]} test, {size / 1e9:.1f} GB; {wall:.0f} s, {cpu:.0f} CPU s, "
              f"{peak.bytes / 1e9:.2f} GB of memory (at most 2)")  # fmt: skip
        print(f"left out: {line.counts}")
        return 0 if peak.bytes < 2e9 else 1
    finally:
        for path in (raw, store):
            shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    chosen = words.pop(words.index("--recipe") + 1) if "--recipe" in words else "clean"
    named = [word for word in words if word != "--recipe"]
    if named:
        sys.exit(main(Path(named[0]), chosen))
    with tempfile.TemporaryDirectory() as name:
        sys.exit(main(Path(name), chosen))
