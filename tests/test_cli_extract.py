"""`embedctl extract` as typed: what it writes, what it says the second time, how bad input ends."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from embedctl.cli import app
from stores.embeddings import EmbeddingStore

NO_PROC = not Path("/proc/self").exists()


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
    assert "weights to fetch" not in result.stdout
    assert result.exit_code == 0, "nothing was skipped yet: no image was opened"
    assert "needed" in result.stdout and not (here / "embeddings.zarr").exists()


def test_an_address_is_no_folder_to_be_made(here):
    result = run("extract", "--model", "pixels", "--store", "ftp://host/e.zarr")
    assert result.exit_code == 2 and result.stderr.startswith("error: 'ftp://host/e.zarr' is not on a disk\nhint:")
    assert run("init", "s3://lab/study").exit_code == run("demo", "s3://lab/study").exit_code == 2
    assert not (here / "ftp:").exists() and not (here / "s3:").exists()


@pytest.mark.parametrize(
    "store", ["images/animals/0.png/e.zarr", pytest.param("/proc/e.zarr", marks=pytest.mark.skipif(NO_PROC, reason=""))]
)
def test_a_store_that_cannot_be_made_is_told_before_an_encoder_is_built(here, store):
    result = run("extract", "--model", "pixels", "--store", store)
    assert result.exit_code == 7 and result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 2


def test_fewer_than_one_worker_is_two_lines(here):
    for command in (["extract", "--model", "pixels"], ["train", "--brain", "eeg"]):
        result = run(*command, "--workers", "0")
        assert result.exit_code == 2
        assert result.stderr.splitlines()[0] == "error: --workers 0" and "1 or more" in result.stderr


def test_part_of_the_images_of_a_store_is_told_as_such(here):
    first = run("extract", "--model", "pixels,hog", "--images", "images")
    assert "convolutions" not in first.stderr and "images/s, start included)" in first.stdout
    animals = here / "images" / "animals"
    Image.new("RGB", (50, 40)).save(animals / "9.png")
    (animals / "0.png").unlink()
    planned = run("extract", "--model", "pixels", "--dry-run")
    assert "not in the folder, 1 of 7" in planned.stderr and "no room needed beside" in planned.stdout
    run("extract", "--model", "pixels")
    again = run("extract", "--model", "pixels")
    assert "nothing to do" in again.stdout and "not in the folder, 1 of 7" in again.stderr
    shown = run("show", "embeddings.zarr").stdout
    assert "  4 of 7  " in shown and "5 of 7" not in shown  # of hog; two of pixels are no images
    run("extract", "--model", "pixels", "--dtype", "float32")
    refused = run("remove", "embeddings.zarr", "pixels")
    assert refused.exit_code == 2 and "(float16)" in refused.stderr and "(float32)" in refused.stderr


@pytest.mark.parametrize("flag", ["--layers", "--view", "--model"])
def test_a_list_that_names_nothing_is_two_lines_and_2(here, flag):
    words = ["--model", "pixels"] if flag != "--model" else []
    result = run("extract", *words, flag, "")
    assert result.exit_code == 2
    error, hint = result.stderr.splitlines()
    assert error == f"error: {flag} names nothing" and hint.startswith("hint:  it takes names")


def test_json_holds_the_same_list(here):
    result = run("extract", "--model", "pixels", "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["schema_version"], found["written"]) == (3, 1, 4)
    assert sorted(found["skipped"]) == ["animals/empty.jpg", "animals/torn.png"]


def test_the_configuration_decides_what_no_flag_says(here):
    (here / "embedctl.toml").write_text('embeddings = "own.zarr"\n[extract]\nmodel = ["hog"]\ndtype = "float32"\n')
    run("extract")
    assert EmbeddingStore.open(here / "own.zarr").entries()[0].dtype == "float32"


@pytest.mark.slow
def test_layers_by_depth_and_views_are_put_on_every_model_that_names_none(here):
    asked = ["--layers", "depth:0.25,0.5,layer1.tokens", "--view", "grey,lowres-20", "--batch-size", "4"]
    result = run("extract", "--model", "resnet18-tv,pixels:output", "--weights", "random:0", *asked)
    assert result.exit_code == 3, result.stderr
    layers = ("pixels:output", *(f"resnet18-tv:{layer}" for layer in ("layer1", "layer1.tokens", "layer2")))
    expected = [f"{layer}@{view}" for layer in layers for view in ("grey", "lowres-20")]
    assert sorted(EmbeddingStore.open(here / "embeddings.zarr").names) == sorted(expected)


@pytest.mark.parametrize(
    ("words", "what", "hint"),
    [
        (["--layers", "conv9"], "'resnet18-tv' has no layer 'conv9'", "it has layer1, layer2, layer3, layer4, avgpool"),
        (["--layers", "layer1.cls"], "'resnet18-tv:layer1.cls': ", "it has mean, tokens, gap, flatten"),
    ],
)
def test_a_layer_or_pooling_that_is_not_there_ends_in_2_and_those_that_are(here, words, what, hint):
    result = run("extract", "--model", "resnet18-tv", "--weights", "random:0", *words)
    problem, way_out = result.stderr.splitlines()[-2:]
    assert result.exit_code == 2 and problem.startswith(f"error: {what}") and way_out.startswith(f"hint:  {hint}")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["extract"], "extract needs to know which encoders"),
        (["extract", "--model", "pixles"], "no encoder called 'pixles'"),
        (["extract", "--model", "pixels@blurr-9"], "no view called 'blurr-9'"),
        (["extract", "--model", "pixels", "--view", "grey,blur"], "'blur' is no view"),
        (["extract", "--model", "pixels", "--layers", "depth:0.5"], "'pixels' has no layers to count"),
        (["extract", "--model", "glocal-resnet18", "--layers", "depth:0.5"], "it has no layers"),
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


def test_the_command_that_repair_gives_after_an_embedding_was_lost_computes_the_same_one(here):
    for image in ("empty.jpg", "torn.png"):
        (here / "images/animals" / image).unlink()
    run("extract", "--model", "pixels", "--batch-size", "16", "--device", "cpu")
    run("extract", "--model", "hog")  # takes the batches of the other, and nobody typed that
    store = EmbeddingStore.open(here / "embeddings.zarr")
    keys = {entry.group for entry in store.entries()}
    for group in keys:
        (here / "embeddings.zarr" / group / "zarr.json").unlink()
        (here / "embeddings.zarr" / group / "values/.embedctl/metadata.json").unlink()
    told = run("repair", "embeddings.zarr").stdout.splitlines()
    for line in (line for line in told if line.startswith("  next")):
        assert run(*shlex.split(line)[2:]).exit_code == 0
    assert {entry.group for entry in EmbeddingStore.open(here / "embeddings.zarr").entries()} == keys
