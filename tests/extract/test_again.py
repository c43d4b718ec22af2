"""A run over a store that has rows already computes what is missing, to the bytes of a single run."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore
from stores.errors import StoreMismatch
from stores.images import ImageRecord
from stores.names import EmbeddingName
from tests.extract.extracting import CONTROLS, files_of, opened, rows_of, run
from tests.photos import write_photographs


def test_a_second_run_does_nothing_opens_no_image_and_says_so(images, monkeypatch, forwards):
    run(images, *CONTROLS)
    before, n_forwards = files_of(images.parent), len(forwards)
    monkeypatch.setattr("pipelines.extract.sources._Folder.read", lambda *_: pytest.fail("opened an image"))
    report = run(images, *CONTROLS)
    assert (report.written, report.already, report.to_do, len(forwards)) == (0, 80, 0, n_forwards)
    assert files_of(images.parent) == before


def test_a_second_run_imports_no_torch(few):
    run(few, "resnet18-tv", "resnet18-tv:layer1", weights="random:7", batch_size=6)
    code = f"""
import sys
from dataclasses import replace
from pathlib import Path
from pipelines.extract.block import rounded
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
models, folder = ("resnet18-tv", "resnet18-tv:layer1"), Path({str(few)!r})
store = folder.parent / "embeddings.zarr"
report = extract(ExtractRequest(models=models, images=folder, store=store, weights="random:7"))
assert (report.written, report.already) == (0, 12), report
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ten_added_images_compute_ten_rows_and_leave_the_others_alone(images, forwards):
    run(images, "pixels", "hog", batch_size=8)
    before = {name: rows_of(images, name) for name in ("pixels", "hog")}
    added = write_photographs(images, 10, first=20)
    forwards.clear()
    report = run(images, "pixels")
    assert (report.written, report.already) == (10, 20)
    # Rows 20 to 29 of a block in batches of 8: numbers 2 and 3.
    assert forwards == ["pixels", "pixels"]
    after = rows_of(images, "pixels")
    assert {i: after[i] for i in before["pixels"]} == before["pixels"] and set(after) - set(before["pixels"]) == set(
        added
    )
    hog = opened(images).resolve("hog")
    assert opened(images).committed(hog).sum() == 20 and not opened(images).absent(hog)
    assert run(images, "pixels", "hog").written == 10


def test_rows_that_were_there_before_anybody_read_their_image_stay(images):
    """As an import leaves them: images known by their ids alone."""
    ids = sorted(str(file.relative_to(images)) for file in images.rglob("*.*"))
    store = EmbeddingStore.open(images.parent / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(image_id, "", 0, 0, 0, 0, "") for image_id in ids])
    entry = store.create(EmbeddingName("mine"), "0a1b", dim=2, dtype="float32", provenance={"imported": True})
    store.write_block(0, {entry.group: (np.arange(20), np.ones((20, 2), np.float32))}, {})
    assert run(images).written == 20
    assert len(opened(images)["mine"]) == 20
    assert all(record.sha256 for record in opened(images).images().values())


def test_a_new_embedding_costs_no_forward_pass_of_those_that_are_complete(images, forwards):
    run(images, "pixels")
    run(images, "pixels", "hog")
    assert forwards == ["pixels", "hog"]


def test_images_that_disappeared_keep_their_rows(images):
    run(images)
    before = rows_of(images, "pixels")
    (images / "concept_000/photo_0000.jpg").unlink()
    assert run(images).written == 0
    assert rows_of(images, "pixels") == before
    assert run(images, "hog").written == 19


def test_a_copied_folder_with_new_times_is_the_same_folder_after_one_hashing(images):
    run(images)
    for file in images.rglob("*.*"):
        os.utime(file, ns=(1, 1))
    assert run(images).written == 0
    assert {record.mtime_ns for record in opened(images).images().values()} == {1}


def test_another_batch_size_is_refused_and_none_adopts_the_recorded_one(images):
    run(images, batch_size=8)
    with pytest.raises(StoreMismatch, match="batch size 8, not 16"):
        run(images, batch_size=16)
    write_photographs(images, 2, first=20)
    assert [line.batch_size for line in run(images).embeddings] == [8]
    assert run(images, batch_size=16, overwrite=True).written == 22
    assert [entry.provenance["batch_size"] for entry in opened(images).entries()] == [16]


def test_overwrite_computes_every_row_again_to_the_same_bytes(images):
    run(images)
    before = rows_of(images, "pixels")
    assert run(images, overwrite=True).written == 20
    assert rows_of(images, "pixels") == before


@pytest.mark.parametrize("models", [("pixels", "hog"), pytest.param(("resnet18-tv",), marks=pytest.mark.slow)])
def test_rows_do_not_depend_on_order_company_or_interruption(few, models, monkeypatch):
    """Everything at once; then images in two portions, with a bad one, one model at a time, after a failure."""
    options = {"weights": "random:7", "batch_size": 4}
    run(few, *models, **options)
    expected = {name: rows_of(few, name) for name in models}

    other = few.parent / "other" / "images"
    portion = sorted(expected[models[0]])[1::2]
    for image_id in portion:
        (other / image_id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(few / image_id, other / image_id)
    (other / "a.jpg").write_bytes(b"")
    with monkeypatch.context() as broken:
        broken.setattr(EmbeddingStore, "write_block", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(other, *models, **options)
    for name in models[::-1]:
        run(other, name, **options)
    shutil.copytree(few, other, dirs_exist_ok=True)
    run(other, *models, **options)
    for name in models:
        assert rows_of(other, name) == expected[name]


def test_a_run_killed_before_its_end_is_ended_by_the_next(tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr")
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "one.png")
    request = ExtractRequest(models=("pixels",), images=tmp_path, store=tmp_path / "e.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingStore, "consolidate", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extract(request)
    assert extract(request).written == 0
    assert len(dict(zarr.open_group(tmp_path / "e.zarr", mode="r").members())) == 2
