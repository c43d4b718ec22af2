"""`embedctl extract` as typed: what it writes, what it says the second time, how bad input ends."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from embedctl.cli import app
from stores.embeddings import EmbeddingStore


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Work in a folder with six images, two of them broken."""
    folder = tmp_path / "images" / "animals"
    folder.mkdir(parents=True)
    for n in range(4):
        pixels = np.random.default_rng(n).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "torn.png").write_bytes((folder / "0.png").read_bytes()[:500])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, list(words))


def test_broken_images_end_in_3_and_a_list_with_reasons(here):
    result = run("extract", "--model", "pixels,colour-histogram")
    assert result.exit_code == 3
    assert "skipped 2 of 6 images:" in result.stderr
    assert "  animals/empty.jpg: " in result.stderr and "  animals/torn.png: " in result.stderr
    store = EmbeddingStore.open(here / "embeddings.zarr")
    assert store.names == ["colour-histogram", "pixels"]
    assert store["pixels"].image_ids == [f"animals/{n}.png" for n in range(4)]


def test_a_dry_run_writes_nothing(here):
    result = run("extract", "--model", "pixels", "--dry-run")
    assert result.exit_code in (0, 3)
    assert "needed" in result.stdout and not (here / "embeddings.zarr").exists()


def test_json_holds_the_same_list(here):
    result = run("extract", "--model", "pixels", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["schema_version"], found["written"]) == (3, 1, 4)
    assert sorted(found["skipped"]) == ["animals/empty.jpg", "animals/torn.png"]


def test_the_configuration_decides_what_no_flag_says(here):
    (here / "embedctl.toml").write_text('embeddings = "own.zarr"\n[extract]\nmodel = ["hog"]\ndtype = "float32"\n')
    run("extract")
    assert EmbeddingStore.open(here / "own.zarr").entries()[0].dtype == "float32"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["extract"], "extract needs to know which encoders"),
        (["extract", "--model", "pixles"], "no encoder called 'pixles'"),
        (["extract", "--model", "pixels", "--images", "nothing"], "nothing"),
        (["extract", "--model", "pixels", "--images", "bare"], "bare"),
        (["extract", "--model", "pixels", "--batch-size", "0"], "batch-size cannot be '0'"),
        (["extract", "--model", "pixels", "--store", "bare"], "bare"),
    ],
)
def test_bad_input_is_two_lines_and_code_2(here, words, what):
    (here / "bare").mkdir()
    (here / "bare" / "notes.txt").write_text("no image, no store")
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert what in result.stderr.splitlines()[0]
    assert len(result.stderr.splitlines()) == 2, result.stderr
