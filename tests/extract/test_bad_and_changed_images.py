"""An image that cannot be read is skipped with a reason, and one that changed is noticed."""

import os
import shutil

import pytest
from PIL import Image

from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from pipelines.extract.views import see
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from tests.extract.extracting import CONTROLS, opened, rows_of, run
from tests.photos import broken_files, photograph, write_photographs


def test_broken_files_are_skipped_with_reasons_and_every_other_row_is_right(images):
    run(images, *CONTROLS, store="clean.zarr")
    broken = broken_files(photograph(0))
    for name, data in broken.items():
        (images / name).write_bytes(data)
    report = run(images, *CONTROLS)
    assert set(report.skipped) == set(broken) and all(report.skipped.values())
    assert [(line.written, line.absent) for line in report.embeddings] == [(20, len(broken))] * 4
    for name in CONTROLS:
        assert rows_of(images, name) == rows_of(images, name, "clean.zarr")
        assert opened(images)[name].absent == report.skipped
    again = run(images, *CONTROLS)
    assert again.written == 0 and again.skipped == report.skipped


def test_a_folder_of_bad_images_only_is_finished_and_stays_so(images):
    shutil.rmtree(images)
    images.mkdir()
    (images / "a.jpg").write_bytes(b"")
    for _ in range(2):
        report = run(images)
        assert report.skipped == {"a.jpg": "the file is empty"} and report.written == 0


def test_a_bad_file_that_was_repaired_gets_its_row_by_itself(images):
    name = "concept_000/photo_0000.jpg"
    good = (images / name).read_bytes()
    (images / name).write_bytes(good[:500])
    assert run(images, "pixels", "hog").skipped
    (images / name).write_bytes(good)
    assert run(images, "pixels").written == 1
    assert run(images, "hog").written == 1 and not run(images, "pixels", "hog").skipped


def test_an_image_that_could_not_be_read_is_tried_again(images):
    (images / "a.jpg").symlink_to(images / "later.bin")
    assert run(images).skipped == {"a.jpg": "cannot be read: No such file or directory"}
    assert run(images).written == 0
    shutil.copy(images / "concept_000/photo_0000.jpg", images / "later.bin")
    report = run(images)
    assert report.written == 1 and not report.skipped
    rows = rows_of(images, "pixels")
    assert rows["a.jpg"] == rows["concept_000/photo_0000.jpg"]


@pytest.mark.parametrize("problem", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_an_image_whose_view_does_not_fit_into_memory_costs_its_own_row_and_is_tried_again(
    images, monkeypatch, problem
):
    Image.fromarray(photograph(0, 70, 50)).save(images / "large.png")

    def see_or_not(decoded, view):
        if view and decoded.size == (70, 50):
            raise problem
        return see(decoded, view)

    with monkeypatch.context() as patch:
        patch.setattr("pipelines.extract.loading.see", see_or_not)
        report = run(images, "pixels@grey")
    assert (
        report.skipped == {"large.png": "cannot be read: not enough memory to preprocess it"} and report.written == 20
    )
    report = run(images, "pixels@grey")
    assert report.written == 1 and not report.skipped


def test_a_changed_image_is_an_error_that_names_it_and_refresh_computes_it_again(images, forwards):
    run(images, "pixels", "hog", batch_size=8)
    name = "concept_001/photo_0009.jpg"
    before = rows_of(images, "pixels")
    shutil.copy(images / "concept_000/photo_0000.jpg", images / name)
    with pytest.raises(EmbedctlError, match=name) as problem:
        run(images, "pixels")
    assert problem.value.exit_code == 2 and "--refresh" in problem.value.hint
    assert rows_of(images, "pixels") == before
    forwards.clear()
    assert run(images, "pixels", refresh=True).written == 1
    assert forwards == ["pixels"]
    after = rows_of(images, "pixels")
    assert after[name] == before["concept_000/photo_0000.jpg"]
    assert {i: row for i, row in after.items() if i != name} == {i: row for i, row in before.items() if i != name}
    # The embedding that was not asked for has no row of the old image any more.
    assert name not in opened(images)["hog"].image_ids
    assert run(images, "hog").written == 1


def test_a_dry_run_of_refresh_counts_a_changed_image_once(images):
    run(images)
    Image.fromarray(photograph(seed=99)).save(images / "concept_000/photo_0000.jpg")
    (line,) = run(images, refresh=True, dry_run=True).embeddings
    assert (line.to_do, line.already + line.absent) == (1, run(images, refresh=True).n_images - 1)


def test_batches_that_do_not_fit_into_memory_are_an_expected_problem(images):
    with pytest.raises(EmbedctlError, match="not enough memory for batches of 4000000000 images") as problem:
        run(images, batch_size=4_000_000_000)  # more than a process can address
    assert run(images, overwrite=True, batch_size=4).written and "--overwrite" in problem.value.hint


def test_refresh_finds_a_change_that_kept_size_and_time(images):
    run(images)
    name = images / "concept_000/photo_0000.jpg"
    stat, data = name.stat(), bytearray(name.read_bytes())
    data[-40] ^= 1
    name.write_bytes(data)
    os.utime(name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(images).written == 0
    with pytest.raises(EmbedctlError, match="photo_0000"):  # found on the way, when another embedding reads it
        run(images, "hog")
    assert run(images, refresh=True).written == 1


def test_an_image_that_changed_when_its_embeddings_are_gone_is_no_problem(tmp_path):
    write_photographs(tmp_path / "images", 3)
    request = ExtractRequest(models=("pixels",), images=tmp_path / "images", store=tmp_path / "e.zarr")
    extract(request)
    store = EmbeddingStore.open(request.store)
    store.remove(store.resolve("pixels"))
    write_photographs(tmp_path / "images", 1, seed=9)
    assert extract(request).written == 3
