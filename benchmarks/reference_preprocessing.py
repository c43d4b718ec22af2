"""Recipes `nice` and `gifford` against the programs they follow: the same numbers, and what they cost.

::

    git clone https://github.com/eeyhsong/NICE-EEG            # MIT
    git clone https://github.com/gifale95/eeg_encoding        # non-commercial: run here, nothing is copied
    python benchmarks/reference_preprocessing.py NICE-EEG eeg_encoding [--images 400]

Simulates one subject of THINGS-EEG2 in the raw format (63 channels, four sessions, 1/f spectra shared between channels,
as a real session 80 % training), runs each reference and ours on the same files, and prints the largest difference as a
fraction of the values' standard deviation and the ratio of CPU seconds. The cost of either grows with the number of
epochs, so that a session with a fortieth of them gives the ratio of a whole one, but for what ours spends once. One
BLAS thread each; imports are not counted. Ends with code 1 if a difference exceeds 1e-5 or a ratio misses its number.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import importlib.util
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.raw_npy import map_pickled
from pipelines.preprocess.recipes import read_recipe
from pipelines.preprocess.request import PreprocessRequest
from pipelines.preprocess.whitening import CovarianceSum, inverse_square_root
from pipelines.simulate.recordings import simulate_things_eeg2
from stores.epochs import EpochStore

SEED, SESSIONS, FULL = 20200220, 4, 16_540 + 4_000  # epochs that a session keeps
PLACES = {  # where the reference lies in its repository; its folders of raw and finished data, rate and mode
    "nice": ("preprocessing", "Raw_data", "Preprocessed_data_250Hz", 250, "epochs"),
    "gifford": ("02_eeg_preprocessing", "eeg_dataset/raw_data", "eeg_dataset/preprocessed_data", 100, "time"),
}
FILES = {"train": "preprocessed_eeg_training.npy", "test": "preprocessed_eeg_test.npy"}
AT_LEAST = {"clean": 10, "nice": 5, "MVNN, epochs": 15, "MVNN, time": 50}


def simulate(raw: Path, n_images: int) -> None:
    """Write the raw files; half of the images are shown twice in each session, a twentieth of test images 20 times."""
    training = [
        f"training_images/{c:05d}_c{c}/c{c}_{i:02d}s.jpg" for c in range(1, n_images // 10 + 1) for i in range(10)
    ]
    test = [f"test_images/{c:05d}_t{c}/t{c}_01s.jpg" for c in range(1, max(2, n_images // 80) + 1)]
    rows = {name: np.random.default_rng(n).normal(size=40) for n, name in enumerate(training + test)}
    names = list(read_recipe("nice").channels)
    amplifier = list(np.random.default_rng(0).permutation(names))  # a file has its own order
    simulate_things_eeg2(raw, training, test, rows, subjects=[1], sessions=SESSIONS, ch_names=amplifier)


@contextlib.contextmanager
def cpu(times: dict[str, float], what: str) -> Iterator[None]:
    """Add the CPU seconds of a block to ``times[what]``; what it prints is nobody's business."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        start = time.process_time()
        yield
        times[what] = times.get(what, 0) + time.process_time() - start


def run_reference(
    recipe: str, checkout: Path, raw: Path, work: Path, times: dict[str, float]
) -> tuple[ModuleType, Any]:
    """Run the reference as its own script does, and return its module and the epochs of its training and test."""
    code, raw_folder, _, sfreq, mode = PLACES[recipe]
    spec = importlib.util.spec_from_file_location(f"{recipe}_reference", checkout / code / "preprocessing_utils.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (work / raw_folder).parent.mkdir(parents=True, exist_ok=True)
    (work / raw_folder).symlink_to(raw)
    args = SimpleNamespace(sub=1, n_ses=SESSIONS, sfreq=sfreq, mvnn_dim=mode, project_dir=str(work))
    with cpu(times, recipe):
        test, _, ch_names, at = module.epoching(args, "test", SEED)
        train, codes, _, _ = module.epoching(args, "training", SEED)
        white_test, white_train = module.mvnn(args, test, train)
        module.save_prepr(args, white_test, white_train, codes, ch_names, at, SEED)
    return module, (test, train)


def run_ours(recipe: str, raw: Path, work: Path, times: dict[str, float]) -> Path:
    store = work / f"{recipe}.zarr"
    with cpu(times, recipe):
        preprocess(PreprocessRequest(dataset="things-eeg2", raw=raw, store=store, recipe=recipe))
    return store


def difference(recipe: str, store: Path, work: Path) -> float:
    """Return the largest difference of any repetition, in standard deviations of the reference's values."""
    ours = EpochStore.open(store)["things-eeg2", 1]
    largest = 0.0
    for split, file in FILES.items():
        theirs = map_pickled(work / PLACES[recipe][2] / "sub-01" / file)
        held = getattr(ours, split)
        order = [ours.ch_names.index(str(name)) for name in theirs["ch_names"]]
        found, expected = held.take(np.arange(len(held)))[:, :, order], theirs["preprocessed_eeg_data"]
        assert held.valid.all() and found.shape == expected.shape, (found.shape, expected.shape)
        largest = max(largest, float(np.abs(found - expected).max() / np.std(expected)))
    return largest


def mvnn_ratio(module: ModuleType, epochs: Any, mode: str, n_images: int) -> float:
    """Return how many times less CPU our noise normalisation of one session takes than the reference's."""
    test, train = (part[0][:n_images] for part in epochs)
    times: dict[str, float] = {}
    with cpu(times, "theirs"):
        module.mvnn(SimpleNamespace(n_ses=1, mvnn_dim=mode), [test], [train])
    parts = [part.astype(np.float32) * np.float32(1e6) for part in (train, test)]

    def ours() -> None:
        total = CovarianceSum(parts[0].shape[2])
        for part in parts[:1] if mode == "epochs" else parts:
            for block in np.array_split(part, max(1, part.shape[0] * part.shape[1] // 64)):
                if mode == "epochs":
                    flat = block.reshape(-1, *block.shape[2:])
                    total.add(flat, np.ones(len(flat)))
                else:
                    total.add_repetitions(block)
        whitener = inverse_square_root(total.mean())[0].astype(np.float32)
        for part in parts:
            whitener @ part

    return times["theirs"] / repeated(ours)


def repeated(action: Callable[[], None], turns: int = 5) -> float:
    """Return the CPU seconds of an action that is too short to be timed once."""
    action()
    start = time.process_time()
    for _ in range(turns):
        action()
    return (time.process_time() - start) / turns


def main(checkouts: list[Path], n_images: int) -> int:
    misses = 0

    def say(what: str, value: float, right: bool, wanted: str) -> None:
        nonlocal misses
        misses += not right
        print(f"{what:34} {value:10.3g}   ({wanted}{'' if right else ': MISSED'})", flush=True)

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        simulate(work / "raw", n_images)
        ours: dict[str, float] = {}
        warm: dict[str, float] = {}
        run_ours("nice", work / "raw", work / "warm", warm)  # imports, and files into memory
        for checkout in checkouts:
            recipe = next(
                name for name, (code, *_) in PLACES.items() if (checkout / code / "preprocessing_utils.py").exists()
            )
            theirs: dict[str, float] = {}
            module, epochs = run_reference(recipe, checkout, work / "raw", work, theirs)
            recipes = ("clean", "nice") if recipe == "nice" else (recipe,)
            stores = {each: run_ours(each, work / "raw", work, ours) for each in recipes}
            apart = difference(recipe, stores[recipe], work)
            say(f"{recipe}: largest difference, sd", apart, apart < 1e-5, "below 1e-5")
            for each in recipes:
                ratio, least = theirs[recipe] / ours[each], AT_LEAST.get(each, 5)
                say(f"{each}: times less CPU than {recipe}", ratio, ratio >= least, f"at least {least}")
            n = sum(part[0].shape[0] * part[0].shape[1] for part in epochs)
            print(f"  a session of {FULL:,} epochs, CPU s: reference {theirs[recipe] / SESSIONS / n * FULL:.0f}, "
                  + ", ".join(f"{each} {ours[each] / SESSIONS / n * FULL:.0f}" for each in recipes))  # fmt: skip
            if recipe == "nice":
                for mode, n_few in (("epochs", n_images), ("time", 20)):
                    ratio, least = mvnn_ratio(module, epochs, mode, n_few), AT_LEAST[f"MVNN, {mode}"]
                    say(f"MVNN, {mode}: times less CPU", ratio, ratio >= least, f"at least {least}")
    return 1 if misses else 0


if __name__ == "__main__":
    words = sys.argv[1:]
    n = int(words.pop(words.index("--images") + 1)) if "--images" in words else 400
    sys.exit(main([Path(word) for word in words if word != "--images"], n))
