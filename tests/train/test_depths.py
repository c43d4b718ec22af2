"""The decisive table chooses every encoder's layer on validation, and no test score of another layer is told."""

import csv
import json
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from embedctl import decisive
from embedctl.cli import app
from pipelines.train.compare import ranking
from pipelines.train.depths import at_best_depths
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.results import read_results, results_schema
from tests.train.conftest import write_embedding, write_subject
from tests.train.test_compare import ALIGNED, HUMAN, PLAIN, row

LAYERS = ("blocks.2.mean", "blocks.10.mean", "")
BEST = {("nice", "none"): ("blocks.2.mean", ""), ("nice", "linear"): ("blocks.10.mean", "blocks.10.mean")}


def runs_of(hidden=0.987):
    """Six subjects; validation prefers `BEST` of aligned and base, all other layers have the test score ``hidden``."""
    for (brain, head), best in BEST.items():
        for which, (encoder, chosen) in enumerate(zip((HUMAN, PLAIN), best, strict=True)):
            for layer, subject, seed in product(LAYERS, range(1, 7), (0, 1)):
                is_best = layer == chosen
                name = f"{encoder}:{layer}" if layer else encoder
                said = {"brain_encoder": brain, "image_head": head, "config_key": brain + head}
                said |= ALIGNED if encoder == HUMAN else {}
                said |= {"val_top1": 0.4 if is_best else 0.3, "epochs_key": f"e{subject}"}
                yield row(name, subject, seed, 0.5 - 0.2 * which + 0.01 * subject if is_best else hidden, **said)


def table(**how):
    return pa.Table.from_pylist(list(runs_of(**how)), schema=results_schema())


def named(encoder, layer):
    return f"{encoder}:{layer}" if layer else encoder


def test_each_encoder_is_taken_at_the_depth_that_validation_chose():
    rows, notes = at_best_depths(table())
    assert not notes
    found = {
        (r.pair.condition["brain_encoder"], r.pair.condition["image_head"]): (r.pair.embedding, r.pair.base)
        for r in rows
    }
    assert found == {key: (named(HUMAN, ours), named(PLAIN, theirs)) for key, (ours, theirs) in BEST.items()}
    for one in rows:
        assert list(one.base.validation) == [named(PLAIN, layer) for layer in LAYERS]
        assert (one.aligned.top1, one.base.top1) == (pytest.approx(0.535), pytest.approx(0.335))
        assert one.pair.difference == pytest.approx(0.2) and one.pair.verdict == "higher"


def test_of_equal_depths_the_first_is_taken_and_only_runs_that_all_layers_have_count():
    rows = [r | {"val_top1": 0.3} for r in runs_of()]
    lacking = [r for r in rows if not (r["subject"] == 6 and r["embedding"] == PLAIN)]
    found, _ = at_best_depths(pa.Table.from_pylist(lacking, schema=results_schema()))
    assert all(one.pair.base == f"{PLAIN}:blocks.2.mean" and one.pair.subjects == (1, 2, 3, 4, 5) for one in found)
    apart = [r for r in rows if (r["subject"] < 4) == (r["embedding"] == PLAIN) or r["encoder"] == HUMAN]
    found, notes = at_best_depths(pa.Table.from_pylist(apart, schema=results_schema()))
    assert not found and notes == [f"{PLAIN} is left out: no subject and seed was run at all its layers"]


@pytest.fixture
def shown(tmp_path, monkeypatch):
    """What the program tells and writes of runs whose other layers have one test score or another."""

    def of(hidden):
        monkeypatch.setattr("stores.results.read_results", lambda folder: table(hidden=hidden))
        files = [tmp_path / f"{hidden}.csv", tmp_path / f"{hidden}.png"]
        said = []
        for words in (["--csv", files[0], "--plot", files[1]], ["--json"]):
            done = CliRunner().invoke(app, ["compare", "--layers", *map(str, words), "--runs", str(tmp_path / "runs")])
            assert done.exit_code == 0, done.stderr
            said.append(done.stdout)
            assert "--json" in words or "split-half reliability 50.0 %" in done.stderr
        return *said, files[0].read_bytes(), files[1].read_bytes()

    return of


def test_the_test_scores_of_other_depths_change_no_letter_and_no_pixel(shown):
    told, as_json, as_csv, picture = shown(0.987)
    assert shown(0.123) == (told, as_json, as_csv, picture)
    assert not any("98.7" in text or "0.987" in text for text in (told, as_json, as_csv.decode()))
    assert picture.startswith(b"\x89PNG") and "53.5 %" in told
    first = next(csv.DictReader(as_csv.decode().splitlines()))
    assert (first["image_head"], first["aligned_embedding"]) == ("linear", f"{HUMAN}:blocks.10.mean")
    assert float(first["difference"]) == pytest.approx(0.2)
    assert (float(first["chance"]), float(first["noise_ceiling"])) == (1 / 200, 0.5)
    assert json.loads(as_json)["layers"][0]["aligned"]["validation"][f"{HUMAN}:blocks.10.mean"] == pytest.approx(0.4)


def test_random_weights_are_marked_in_the_table_and_in_the_csv(capsys):
    as_drawn = [row | {"weights": "random:7"} for row in runs_of()]
    rows, _ = at_best_depths(pa.Table.from_pylist(as_drawn, schema=results_schema()))
    decisive.tell(rows)
    told = capsys.readouterr().out
    assert told.count(" (random:7)") == 2 * len(rows)
    first = next(csv.DictReader(decisive.as_csv(rows).decode().splitlines()))
    assert (first["aligned_weights"], first["base_weights"]) == ("random:7", "random:7")


@pytest.mark.slow
def test_planted_layers_and_pairs_are_recovered_and_a_scrambled_test_chooses_no_other_depth(workspace, tmp_path):
    """Recordings carry one layer of the aligned encoder; the base has that layer with noise on it."""
    rng = np.random.default_rng(3)
    noise = [rng.standard_normal(workspace.planted.shape) for _ in range(4)]
    store = EmbeddingStore.open(tmp_path / "embeddings.zarr", create=True)
    store.add_images(EmbeddingStore.open(workspace.embeddings).images().values())
    said = {"aligned_by": "dreamsim", "matched_base": "plain", "match": "exact"}
    for name, values in {"tuned:blocks.2": workspace.planted, "tuned:blocks.4": noise[0], "tuned": noise[1]}.items():
        write_embedding(store, name, values, registry=said)
    for name, values in {"plain:blocks.2": noise[2], "plain:blocks.4": workspace.planted + 1.5 * noise[3]}.items():
        write_embedding(store, name, values)
    found, validation = [], []
    for scrambled in (False, True):
        epochs = EpochStore.open(tmp_path / f"{scrambled}.zarr", create=True)
        for subject in (1, 2):
            write_subject(epochs, subject, workspace.planted, scramble_test=scrambled)
        asked = {
            "brain": "eeg",
            "recipe": workspace.recipe,
            "device": "cpu",
            "embeddings": tmp_path / "embeddings.zarr",
        }
        done = train(TrainRequest(**asked, epochs=tmp_path / f"{scrambled}.zarr", runs=tmp_path / f"runs-{scrambled}"))
        results = read_results(done.runs)
        found += at_best_depths(results, runs=done.runs)[0]
        validation.append([(row["subject"], row["embedding"], row["val_top1"]) for row in results.to_pylist()])
        if not scrambled:
            best = [row.embedding for row in ranking(results)][:2]
    assert best == ["tuned:blocks.2", "plain:blocks.4"]
    plain, blind = found
    assert (plain.pair.embedding, plain.pair.base) == ("tuned:blocks.2", "plain:blocks.4")
    assert plain.aligned.top1 > plain.base.top1 > 2 / 16 and plain.pair.difference > 0
    assert (blind.pair.embedding, blind.pair.base) == ("tuned:blocks.2", "plain:blocks.4")
    assert (blind.aligned.validation, blind.base.validation) == (plain.aligned.validation, plain.base.validation)
    assert sorted(validation[0]) == sorted(validation[1]) and blind.aligned.top1 < plain.aligned.top1


def test_without_layers_nothing_is_written(tmp_path):
    done = CliRunner().invoke(app, ["compare", "--csv", "x.csv", "--runs", str(tmp_path)])
    assert done.exit_code == 2 and "add --layers" in done.stderr
