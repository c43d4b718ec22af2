"""Embeddings derived from stored rows: no network, no image, the same bytes either way."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipelines.encoders.affine import random_affine
from pipelines.encoders.combinations import read_combination
from pipelines.encoders.derived import base_weights
from pipelines.extract import derive
from pipelines.extract.divide import divide
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.errors import EmbedctlError, NotHere
from stores.names import EmbeddingName

BASE, ALIGNED = "resnet18-tv", "glocal-resnet18"


@pytest.fixture
def request_(tmp_path):
    return ExtractRequest(
        models=(ALIGNED,), images=tmp_path / "images", store=tmp_path / "embeddings.zarr", weights="random:7"
    )


def store_base(request, n=150, *, weights="random:7", absent=(), key="0a1b2c", dtype="float16", first=0):
    """A store as a pass over images would leave it."""
    store = EmbeddingStore.open(request.store, create=True)
    store.add_images([ImageRecord(f"{i:03}.jpg", "00", 1, 0, 8, 8, "RGB") for i in range(first, n)])
    facts = {"weights": weights, "weights_source": "https://somewhere", "batch_size": 32, "exact": False}
    entry = store.create(EmbeddingName(BASE), key, dim=512, dtype=dtype, provenance=facts)
    values = np.random.default_rng(5).standard_normal((1000, 512)).astype(dtype)
    missing = {row: "not an image" for row in absent}
    for block, start in enumerate(range(0, n, store.block_rows)):
        here = [r for r in range(start, min(start + store.block_rows, n)) if r not in missing and r >= first]
        store.write_block(
            block,
            {entry.group: (np.array(here), values[here])},
            {r: why for r, why in missing.items() if r // store.block_rows == block},
        )
    store.consolidate()
    return EmbeddingStore.open(request.store)


def test_derived_rows_are_the_map_of_the_rows_as_stored(request_):
    base = store_base(request_)[BASE]
    report = extract(request_)
    derived = EmbeddingStore.open(request_.store)[ALIGNED]
    expected = random_affine(512, 7)(base.values, np.arange(150)).astype(np.float16)
    assert derived.values.tobytes() == expected.tobytes()
    assert derived.image_ids == base.image_ids
    assert derived.provenance["derived_from"] == [{"name": BASE, "key": "0a1b2c", "dtype": "float16"}]
    assert derived.provenance["weights"] == "random:7"
    assert (report.written, report.n_images, [line.name for line in report.embeddings]) == (150, 150, [ALIGNED])


def test_a_row_that_goes_before_the_store_is_locked_is_not_derived_from_its_neighbour(request_, monkeypatch):
    values, looked = store_base(request_, 20)[BASE].values.copy(), []
    look = derive._rows_to_do

    def and_then_another_command_refreshes(work, entry):
        found = look(work, entry)
        if not looked:
            looked.append(found)
            EmbeddingStore.open(request_.store).update_images([ImageRecord("005.jpg", "ff", 1, 0, 8, 8, "RGB")])
        return found

    monkeypatch.setattr(derive, "_rows_to_do", and_then_another_command_refreshes)
    extract(request_)
    rows = [row for row in range(20) if row != 5]
    derived = EmbeddingStore.open(request_.store)[ALIGNED]
    assert derived.image_ids == [f"{row:03}.jpg" for row in rows]
    assert derived.values.tobytes() == random_affine(512, 7)(values, np.arange(20)).astype(np.float16)[rows].tobytes()


def test_a_second_run_finds_nothing_to_do(request_):
    store_base(request_)
    extract(request_)
    report = extract(request_)
    assert (report.written, report.already, report.to_do) == (0, 150, 0)


def test_images_added_later_cost_only_their_own_rows(request_):
    store_base(request_, n=100)
    extract(request_)
    before = EmbeddingStore.open(request_.store)[ALIGNED].values
    store_base(request_, n=150, first=100)
    report = extract(request_)
    after = EmbeddingStore.open(request_.store)[ALIGNED].values
    assert report.written == 50
    assert after[:100].tobytes() == before.tobytes()
    whole = random_affine(512, 7)(EmbeddingStore.open(request_.store)[BASE].values, np.arange(150))
    assert after.tobytes() == whole.astype(np.float16).tobytes()


@pytest.mark.parametrize("most_bytes", [derive.MOST_BYTES, 60 * 512 * 2])
def test_an_image_without_a_base_row_has_no_derived_row_for_the_same_reason(request_, monkeypatch, most_bytes):
    base = store_base(request_, absent=[3, 70])[BASE]
    monkeypatch.setattr(derive, "MOST_BYTES", most_bytes)  # a block at once, or in three pieces
    report = extract(request_)
    derived = EmbeddingStore.open(request_.store)[ALIGNED]
    assert derived.absent == {"003.jpg": "not an image", "070.jpg": "not an image"} == report.skipped
    assert len(derived) == 148 and extract(request_).written == 0
    rows = np.array([row for row in range(150) if row not in (3, 70)])
    assert derived.values.tobytes() == random_affine(512, 7)(base.values, rows).astype(np.float16).tobytes()


def test_a_dry_run_tells_and_writes_nothing(request_):
    store_base(request_)
    report = extract(replace(request_, dry_run=True))
    assert (report.to_do, report.written) == (150, 0)
    assert EmbeddingStore.open(request_.store).names == [BASE]


def test_overwrite_drops_the_derived_rows_and_keeps_the_base(request_):
    store_base(request_)
    extract(request_)
    report = extract(replace(request_, overwrite=True))
    store = EmbeddingStore.open(request_.store)
    assert report.written == 150 and len(store[BASE]) == 150 and store[BASE].key == "0a1b2c"


def test_weights_pair_only_with_weights_of_the_same_kind_and_seed(request_):
    store_base(request_, weights="random:8")
    passes, derived = divide(request_)
    assert [part.models for part in passes] == [(BASE,)] and list(derived) == [EmbeddingName(ALIGNED)]
    passes, _ = divide(replace(request_, weights="random:8"))
    assert passes == []


def test_a_base_that_is_there_needs_neither_its_weights_nor_the_images_but_the_transform(request_, monkeypatch):
    store_base(request_, weights="sha256:00")
    monkeypatch.setenv("TORCH_HOME", str(request_.store.parent))
    with pytest.raises(NotHere, match="weights of 'glocal-resnet18'"):
        extract(replace(request_, weights="published", offline=True))


def test_a_folder_of_pulled_weights_serves_the_base_too_where_it_holds_it(tmp_path):
    assert base_weights(str(tmp_path), BASE) == "published"
    (tmp_path / BASE).mkdir()
    assert base_weights(str(tmp_path), BASE) == str(tmp_path)


def test_a_file_is_the_transform_and_the_base_the_published_one(request_, tmp_path):
    store_base(request_, weights="sha256:00")
    arrays = {"weights": np.eye(512, dtype="f4"), "mean": np.float32(1), "std": np.float32(2)}
    np.savez(tmp_path / "mine.npz", **arrays)
    extract(replace(request_, weights=str(tmp_path / "mine.npz"), dtype="float32"))
    store = EmbeddingStore.open(request_.store)
    np.testing.assert_array_equal(store[ALIGNED].values, (store[BASE].values.astype("f4") - 1) / 2)


def test_a_transform_that_cannot_be_used_is_refused_before_its_base_is_extracted(request_, tmp_path):
    np.savez(tmp_path / "mine.npz", weights=np.eye(3, dtype="f4"), mean=np.float32(0), std=np.float32(1))
    with pytest.raises(EmbedctlError, match="mine.npz: 'weights' is"):
        extract(replace(request_, weights=str(tmp_path / "mine.npz"), offline=True))


def test_one_file_cannot_be_the_weights_of_two_encoders(request_, tmp_path):
    (tmp_path / "mine.npz").touch()
    with pytest.raises(EmbedctlError, match="cannot be the weights of 'hog' and of 'glocal-resnet18'"):
        extract(replace(request_, models=("hog", ALIGNED), weights=str(tmp_path / "mine.npz")))


def test_a_value_beyond_float16_makes_the_derived_embedding_float32(request_, tmp_path):
    store_base(request_, weights="sha256:00")
    arrays = {"weights": 1e6 * np.eye(512, dtype="f4"), "mean": np.float32(0), "std": np.float32(1)}
    np.savez(tmp_path / "large.npz", **arrays)
    report = extract(replace(request_, weights=str(tmp_path / "large.npz")))
    store = EmbeddingStore.open(request_.store)
    assert store[ALIGNED].dtype == np.float32 and report.embeddings[0].dtype == "float32"
    assert "float16 cannot hold" in store[ALIGNED].provenance["note"]
    assert extract(replace(request_, weights=str(tmp_path / "large.npz"))).written == 0


def test_a_layer_of_a_derived_encoder_is_refused(request_):
    with pytest.raises(EmbedctlError, match="it has no layers"):
        extract(replace(request_, models=(f"{ALIGNED}:layer3",)))


def test_a_base_that_is_lacking_is_extracted_in_the_same_command(request_):
    request_.images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).save(request_.images / f"{i}.png")
    (request_.images / "bad.png").write_bytes(b"no image")
    request_ = replace(request_, batch_size=2)
    report = extract(request_)
    assert [(line.name, line.written) for line in report.embeddings] == [(BASE, 5), (ALIGNED, 5)]
    assert list(report.skipped) == ["bad.png"]
    # the same rows as when the base had been there before
    before = replace(request_, store=request_.store.with_name("other.zarr"), models=(BASE,))
    extract(before)
    report = extract(replace(before, models=(ALIGNED, BASE)))
    assert [(line.name, line.written) for line in report.embeddings] == [(BASE, 0), (ALIGNED, 5)]
    one, other = (EmbeddingStore.open(path)[ALIGNED] for path in (request_.store, before.store))
    assert one.key == other.key and one.values.tobytes() == other.values.tobytes()


def test_a_derived_row_that_is_not_finite_is_told_and_not_tried_again(request_, monkeypatch):
    store_base(request_, n=20)

    def read(name, weights, offline):
        found = read_combination(name, weights, offline=offline)
        return replace(
            found, combine=lambda values, rows: np.where(rows[:, None] == 3, np.nan, found.combine(values, rows))
        )

    monkeypatch.setattr("pipelines.extract.divide.read_combination", read)
    reports = [extract(request_) for _ in range(2)]
    assert [(report.to_do, report.written) for report in reports] == [(20, 19), (0, 0)]
    assert all("not finite" in report.skipped["003.jpg"] for report in reports)
