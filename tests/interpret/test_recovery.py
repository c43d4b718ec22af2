"""Recordings in the raw format with a planted truth, through every stage: `interpret` finds what was planted."""

from types import SimpleNamespace

import numpy as np
import pytest

from pipelines.interpret.interpret import interpret
from pipelines.interpret.request import InterpretRequest
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.simulate.recordings import TOPOGRAPHY, simulate_things_eeg2
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from stores.embeddings import EmbeddingStore
from stores.images import ImageRecord
from tests.train.conftest import write_embedding

pytestmark = pytest.mark.slow

CH_NAMES = "F3 Fz F4 C3 Cz C4 T7 T8 P3 Pz P4 PO7 POz PO8 O1 Oz O2".split()
TRAINING = [f"training_images/{c:05d}_c{c}/c{c}_{i}.jpg" for c in range(1, 41) for i in range(6)]
TEST = [f"test_images/{c:05d}_t{c}/t{c}_0.jpg" for c in range(1, 41)]
IDS = TRAINING + TEST
BASE = {"matched_base": "late", "match": "exact", "aligned_by": "dreamsim", "base": "late"}


def embedding(seed):
    return np.random.default_rng(seed).standard_normal((len(IDS), 16))


def simulate(raw, values, **planted):
    rows = dict(zip(IDS, values, strict=True))
    common = {"subjects": [1], "sessions": 2, "test_repetitions": 20, "ch_names": CH_NAMES, "n_sources": 8}
    simulate_things_eeg2(raw, TRAINING, TEST, rows, **common, **planted)


def all_stages(folder, embeddings):
    """Preprocess, train and interpret, and return the report."""
    preprocess(PreprocessRequest(dataset="things-eeg2", raw=folder / "raw", store=folder / "epochs.zarr"))
    store = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(i, f"{n:064x}", 1, 1, 8, 8, "RGB") for n, i in enumerate(IDS)])
    for name, values in embeddings.items():
        write_embedding(store, name, values, registry=BASE if name == "early" else {})
    (folder / "r.toml").write_text('base = "demo"\nchannels = []\nwindow = []\ndim = 0\n')
    where = {name: folder / f"{name}.zarr" for name in ("embeddings", "epochs")} | {"runs": folder / "runs"}
    train(TrainRequest(brain="eeg", recipe=str(folder / "r.toml"), brain_encoder="eegproject", device="cpu", **where))
    report = interpret(InterpretRequest(**where))
    return SimpleNamespace(**{profile.embedding: profile for profile in report.profiles}, pairs=report.pairs)


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """One embedding drives 100 to 180 ms, another 400 to 480 ms, of the same recordings."""
    folder = tmp_path_factory.mktemp("twice")
    early, late = embedding(0), embedding(1)
    bump = {"spread": 0.04, "width": 0.01, "amplitude": 2.0}
    simulate(folder / "raw", early, latency=0.12, **bump)
    simulate(folder / "late", late, latency=0.42, **bump)
    simulate(folder / "none", late, latency=0.42, planted=False)  # the same noise and the same events
    for file in (folder / "raw").glob("sub-*/*/*.npy"):
        one, other, none = (
            np.load(folder / name / file.relative_to(folder / "raw"), allow_pickle=True).item()
            for name in ("raw", "late", "none")
        )
        one["raw_eeg_data"] = one["raw_eeg_data"] + other["raw_eeg_data"] - none["raw_eeg_data"]
        np.save(file, one, allow_pickle=True)
    return all_stages(folder, {"early": early, "late": late})


@pytest.fixture(scope="module")
def rhythm(tmp_path_factory):
    """An embedding drives oscillations of 8 to 12 Hz from 100 to 700 ms."""
    folder = tmp_path_factory.mktemp("rhythm")
    simulate(folder / "raw", embedding(0), latency=0.1, spread=0.6, rhythm=(8.0, 12.0), amplitude=1.0)
    return all_stages(folder, {"rhythmic": embedding(0)})


def reached(name):
    return TOPOGRAPHY.get(name.rstrip("0123456789z"), 0.0) >= 0.8


def test_a_broadband_effect_at_100_to_180_ms_is_found_in_its_window_and_over_its_sensors(twice):
    found = twice.early
    assert found.top1 > 3 / len(TEST)
    assert found.windows and all(0.096 <= w.first and w.last <= 0.184 for w in found.windows)
    assert sum(w.last - w.first for w in found.windows) > 0.03
    assert 0.1 <= found.peak <= 0.18 and 0.1 <= found.half <= 0.18
    significant = [name for name, p in found.sensor_p.items() if p <= 0.05]
    assert significant and all(map(reached, significant))
    assert max(found.sensors, key=found.sensors.get) in {"O1", "Oz", "O2"}
    assert max(found.groups, key=found.groups.get) == "occipital"


def test_taking_that_part_away_costs_most(twice):
    lost = {(part["kind"], part["part"]): part["lost"] for part in twice.early.occlusion}
    windows = sorted((key for key in lost if key[0] == "time"), key=lost.get)
    assert windows[-1][1] in {"100 to 150 ms", "150 to 200 ms"}
    assert lost["sensors", "occipital"] == max(value for key, value in lost.items() if key[0] == "sensors")


def test_early_and_late_are_told_apart_in_the_right_direction(twice):
    assert twice.late.windows and all(0.396 <= w.first and w.last <= 0.484 for w in twice.late.windows)
    [pair] = twice.pairs
    assert -0.4 < pair.half[1] < -0.2
    everything = next(test for test in pair.tests if not test.matched)
    more, less = ([w for w in everything.windows if w.sign == sign] for sign in (1, -1))
    assert more and all(0.09 <= w.first and w.last <= 0.19 for w in more)
    assert less and all(0.39 <= w.first and w.last <= 0.49 for w in less)


def test_a_sustained_effect_of_8_to_12_hz_is_found_in_its_band(rhythm):
    bands = {name: value for name, value in rhythm.rhythmic.bands.items() if name != "offset"}
    assert max(bands, key=bands.get) == "alpha"
    assert bands["alpha"] > 0.5 and bands["alpha"] > 4 * max(v for name, v in bands.items() if name != "alpha")
    assert rhythm.rhythmic.band_p["alpha"] < 1e-6
    lost = {part["part"]: part["lost"] for part in rhythm.rhythmic.occlusion if part["kind"] == "band"}
    assert max(lost, key=lost.get) == "alpha" and lost["alpha"] > 4 * lost["beta"]
    assert max(rhythm.rhythmic.groups, key=rhythm.rhythmic.groups.get) == "occipital"


def test_random_weights_find_neither(twice, rhythm):
    for found in (twice.early, twice.late, rhythm.rhythmic):
        assert (found.untrained_windows, found.untrained_bands, found.untrained_groups) == ([], [], [])
        assert abs(found.similarity) < found.reliability
