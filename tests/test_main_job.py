"""Photographs to rows as typed: the numbers of the libraries, no work twice, and broken files among them."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.encoders.build import Encoder
from pipelines.extract.images import DecodedImage, read
from pipelines.extract.sources import _Folder
from stores.embeddings import EmbeddingStore
from tests.photos import ODD_FILES, broken_files, photograph, write_photographs
from tests.plain_loop import MODELS, plain_rows, rgb

CONTROLS = ("pixels", "gabor-pyramid", "hog", "colour-histogram")


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """Work in a folder whose ``images`` holds twenty photographs."""
    write_photographs(tmp_path / "images", 20)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def work(monkeypatch) -> Counter:
    """What is really done: images read, and forward passes by encoder (building one probes it with one row)."""
    done: Counter = Counter()
    read, forward = _Folder.read, Encoder.__call__

    def counted_read(self, image_id):
        done["read"] += 1
        return read(self, image_id)

    def counted_forward(self, batch):
        done[self.spec.id] += len(batch) > 1
        return forward(self, batch)

    monkeypatch.setattr(_Folder, "read", counted_read)
    monkeypatch.setattr(Encoder, "__call__", counted_forward)
    return done


def extract(*words: str):
    return CliRunner().invoke(app, ["extract", *words])


def rows(store: str = "embeddings.zarr") -> dict[str, dict[str, bytes]]:
    opened = EmbeddingStore.open(Path(store))
    return {
        name: dict(zip(opened[name].image_ids, map(bytes, opened[name].values), strict=True)) for name in opened.names
    }


@pytest.mark.slow
def test_exact_rows_are_those_of_pillow_and_the_library_and_float16_is_their_rounding(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ids = [write_photographs(tmp_path / "images", 1, first=first)[0] for first in (2, 3, 7)]  # JPEG, PNG, WebP
    odd = ("grey.jpg", "cmyk.jpg", "exif6.jpg", "alpha.png", "grey16.png")
    for seed, name in enumerate(odd):
        (tmp_path / "images" / name).write_bytes(ODD_FILES[name](photograph(seed, 300, 240)))
    words = ("--model", ",".join(MODELS), "--weights", "random:7", "--exact", "--batch-size", "4")
    for dtype in ("float32", "float16"):
        result = extract(*words, "--dtype", dtype, "--store", f"{dtype}.zarr")
        assert result.exit_code == 0, result.stderr
    whole, half = (EmbeddingStore.open(tmp_path / f"{dtype}.zarr") for dtype in ("float32", "float16"))
    for name in MODELS:
        stored, rounded = whole[name], half[name]
        assert sorted(stored.image_ids) == sorted([*ids, *odd]) and stored.values.dtype == np.float32
        plain = plain_rows(name, 7, [tmp_path / "images" / image_id for image_id in stored.image_ids])
        np.testing.assert_allclose(stored.values, plain, rtol=1e-5, atol=1e-5)
        assert np.abs(plain).max() > 0.1 and np.ptp(plain, axis=0).max() > 0.01  # rows of something, and not one row
        assert rounded.image_ids == stored.image_ids and rounded.values.dtype == np.float16
        assert np.array_equal(rounded.values, stored.values.astype(np.float16))


def test_the_pictures_of_the_plain_loop_are_those_that_extract_sees(tmp_path):
    for seed, (name, make) in enumerate(ODD_FILES.items()):
        (tmp_path / name).write_bytes(make(photograph(seed)))
        ours = read(tmp_path / name)
        assert isinstance(ours, DecodedImage) and np.array_equal(ours.rgb, np.array(rgb(tmp_path / name))), name


def test_the_second_run_reads_nothing_computes_nothing_and_says_so(here, work):
    first = extract("--model", ",".join(CONTROLS))
    assert first.exit_code == 0 and work["read"] == 20
    files = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in here.rglob("*") if file.is_file()}
    work.clear()
    second = extract("--model", ",".join(CONTROLS))
    assert (second.exit_code, +work) == (0, Counter())
    assert second.stdout.endswith("embeddings.zarr: nothing to do, every row is there already\n")
    assert files == {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in here.rglob("*") if file.is_file()}


def test_ten_more_images_are_ten_images_read_and_ten_rows_per_encoder(here, work):
    extract("--model", ",".join(CONTROLS), "--batch-size", "10")
    before = rows()
    work.clear()
    added = write_photographs(here / "images", 10, first=20)
    told = json.loads(extract("--model", ",".join(CONTROLS), "--json").stdout)
    assert +work == Counter({"read": 10} | dict.fromkeys(CONTROLS, 1))  # one batch of ten each
    assert (told["n_read"], told["n_images"]) == (10, 30)
    assert [(line["written"], line["already"]) for line in told["embeddings"]] == [(10, 20)] * 4
    after = rows()
    for name in CONTROLS:
        assert set(after[name]) - set(before[name]) == set(added)
        assert {image: after[name][image] for image in before[name]} == before[name]


def test_images_per_second_are_those_read_in_this_run(here, monkeypatch):
    extract("--model", "pixels")
    write_photographs(here / "images", 10, first=20)
    import pipelines.extract.extract as module

    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr(module, "perf_counter", lambda: float(next(clock)))
    said = extract("--model", "pixels").stdout.splitlines()[-1]
    seconds, speed = (float(word) for word in (said.split(" in ")[1].split()[0], said.split("(")[1].split()[0]))
    assert speed == pytest.approx(10 / seconds, rel=0.01)


def test_broken_files_end_in_3_and_every_other_row_is_right(here):
    assert extract("--model", ",".join(CONTROLS), "--store", "clean.zarr").exit_code == 0
    broken = broken_files(photograph(0))
    for name, data in broken.items():
        (here / "images" / name).write_bytes(data)
    for _ in range(2):  # the second run has nothing to do, and they are broken still
        result = extract("--model", ",".join(CONTROLS))
        assert result.exit_code == 3
        listed = result.stderr[result.stderr.index(f"skipped {len(broken)} of {20 + len(broken)} images:\n") :]
        told = dict(line.strip().split(": ", 1) for line in listed.splitlines()[1:])
        assert set(told) == set(broken) and all(told.values())
    assert rows() == rows("clean.zarr")


def test_a_run_that_finds_only_broken_files_does_not_say_that_every_row_is_there(here):
    (here / "bad").mkdir()
    (here / "bad" / "empty.jpg").write_bytes(b"")
    result = extract("--model", "pixels", "--images", "bad")
    assert result.exit_code == 3 and "wrote no row, read 1 of 1 image in" in result.stdout
    assert "nothing to do" in extract("--model", "pixels", "--images", "bad").stdout


def test_an_empty_folder_is_two_lines_and_code_2(here):
    (here / "bare").mkdir()
    result = extract("--model", "pixels", "--images", "bare")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        "error: no images in 'bare'",
        "hint:  files are images when their names end in .bmp .gif .jpeg .jpg .png .tif .tiff .webp",
    ]
    assert not (here / "embeddings.zarr").exists()
