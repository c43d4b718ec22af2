"""`embedctl show` on every kind of thing the program writes, and on things it did not write."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.names import EmbeddingName
from stores.results import assemble, write_run
from tests.summaries import summary_of


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "embeddings.zarr"
    store = EmbeddingStore.open(path, create=True)
    store.add_images([ImageRecord(name, "00", 1, 0, 8, 8, "RGB") for name in ("a.jpg", "b.jpg", "c\x1b.jpg")])
    provenance = {"weights": "random:7", "date": "2026-01-01T00:00:00"}
    entry = store.create(EmbeddingName("hog"), "0a1b", dim=2, dtype="float16", provenance=provenance)
    store.write_block(0, {entry.group: (np.array([0, 2]), np.ones((2, 2), "f2"))}, {1: "truncated"})
    return path


@pytest.fixture
def runs(tmp_path):
    for seed in (0, 1):
        summary = summary_of(f"r{seed}", dataset="things-eeg2", embedding="hog", seed=seed)
        write_run(
            tmp_path / "runs", f"r{seed}", config={"lr": 1}, summary=summary, arrays={}, checkpoint=b"", metrics=[]
        )
    assemble(tmp_path / "runs")
    return tmp_path / "runs"


def test_an_embedding_store_lists_its_embeddings(store):
    result = run("show", store)
    assert result.stdout.splitlines() == [
        "embedding  dim  dtype    images  without a row  weights   computed",
        "hog          2  float16       2              1  random:7  2026-01-01T00:00:00",
    ]
    assert result.stderr == f"{store}: 3 images\n"


def test_json_names_the_images_without_a_row(store):
    found = json.loads(run("show", store, "--json").stdout)
    assert (found["schema_version"], found["kind"], found["images"]) == (1, "embeddings", 3)
    assert found["embeddings"][0]["absent"] == {"b.jpg": "truncated"}


def test_a_folder_of_runs_is_summed_up(runs):
    lines = run("show", runs).stdout.splitlines()
    assert lines[0] == "2 runs"
    assert "embedding     hog" in lines and "seed          0, 1" in lines
    assert json.loads(run("show", runs, "--json").stdout)["seed"] == [0, 1]


def test_a_run_shows_its_summary_and_its_config(runs):
    assert "run_id            r1" in run("show", runs / "r1").stdout
    found = json.loads(run("show", runs / "r1", "--json").stdout)
    assert (found["summary"]["seed"], found["config"]) == (1, {"lr": 1})


def test_what_is_not_ours_is_said_so(tmp_path):
    for place, what in ((tmp_path, "is neither a store"), (tmp_path / "nothing", "there is nothing at")):
        result = run("show", place)
        assert result.exit_code == 2 and what in result.stderr and len(result.stderr.splitlines()) == 2


def test_metadata_that_cannot_be_read_is_damage(tmp_path):
    (tmp_path / "zarr.json").write_text("{ not json")
    result = run("show", tmp_path)
    assert result.exit_code == 4 and len(result.stderr.splitlines()) == 2
