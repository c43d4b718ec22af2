"""Recordings with a planted effect give its encoder away in every seed; the same recordings without it give nothing.

Every subject is a simulation of its own, with its own seed: written in the raw format, preprocessed, and trained on.
"""

import numpy as np
import pytest
from scipy.stats import binom

from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from pipelines.simulate.recordings import simulate_things_eeg2
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from stores.embeddings import EmbeddingStore
from stores.images import ImageRecord
from stores.results import read_results
from tests.train.conftest import write_embedding

TRAINING = [f"training_images/{c:05d}_thing{c}/thing{c}_{i}.jpg" for c in range(1, 31) for i in range(4)]
TEST = [f"test_images/{c:05d}_other{c}/other{c}_0.jpg" for c in range(1, 31)]
CHANNELS = ("P7", "Pz", "O1", "Oz", "O2")
ONE_IN_TEN_THOUSAND = 1e-4


def top1(folder, simulations, seeds, *, planted):
    """Simulate, preprocess and train; return top-1 of each embedding by simulation and seed."""
    ids = TRAINING + TEST
    rng = np.random.default_rng(3)
    embeddings = {name: rng.standard_normal((len(ids), 32)) for name in ("planted", "unrelated")}
    store = EmbeddingStore.open(folder / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(name, f"{n:064x}", 1, 1, 8, 8, "RGB") for n, name in enumerate(ids)])
    for name, values in embeddings.items():
        write_embedding(store, name, values)
    rows = dict(zip(ids, embeddings["planted"], strict=True))
    raw = folder / "raw"
    for simulation in simulations:
        simulate_things_eeg2(
            raw, TRAINING, TEST, rows, subjects=[simulation], seed=simulation, planted=planted,
            sessions=2, test_repetitions=20, amplitude=3.0, noise=5.0, n_sources=8, ch_names=CHANNELS,
        )  # fmt: skip
    preprocess(PreprocessRequest(dataset="things-eeg2", raw=raw, store=folder / "epochs.zarr"))
    (folder / "quick.toml").write_text('base = "demo"\npasses = 8\nlr = 1e-3\n')
    train(
        TrainRequest(
            brain="eeg",
            seeds=seeds,
            recipe=str(folder / "quick.toml"),
            embeddings=folder / "embeddings.zarr",
            epochs=folder / "epochs.zarr",
            runs=folder / "runs",
        )
    )
    found = read_results(folder / "runs").to_pylist()
    assert len(found) == 2 * len(simulations) * len(seeds)
    return {(row["embedding"], row["subject"], row["seed"]): row["top1"] for row in found}


def interval(n_queries):
    """Hits out of so many that a guess leaves once in ten thousand times."""
    return binom.interval(1 - ONE_IN_TEN_THOUSAND, n_queries, 1 / len(TEST))


@pytest.mark.slow
def test_without_an_effect_accuracy_is_at_chance_over_independent_simulations(tmp_path):
    simulations = range(1, 9)  # one seed each: two trainings on the same recordings are not independent
    found = top1(tmp_path, simulations, (0,), planted=False)
    low, high = interval(len(simulations) * len(TEST))
    for name in ("planted", "unrelated"):
        hits = len(TEST) * sum(found[name, simulation, 0] for simulation in simulations)
        assert low <= hits <= high, (name, hits, low, high)


@pytest.mark.slow
def test_with_it_the_planted_encoder_wins_in_every_simulation_and_seed(tmp_path):
    simulations, seeds = range(1, 5), (0, 1, 2)
    found = top1(tmp_path, simulations, seeds, planted=True)
    for simulation in simulations:
        for seed in seeds:
            assert found["planted", simulation, seed] > found["unrelated", simulation, seed], found
    # The interval of the test above does not hold this: it can fail.
    hits = len(TEST) * sum(found["planted", simulation, 0] for simulation in simulations)
    assert hits > 2 * interval(len(simulations) * len(TEST))[1]
