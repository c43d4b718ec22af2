"""A row is either complete and committed or absent for a reason; it never moves."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import blocks, receipts
from stores.blocks import block_rows_for, chunk_rows_for
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.errors import CannotWrite, DamagedStore, EmbedctlError, StoreLocked, StoreMismatch, UnknownName
from stores.images import image_table_bytes
from stores.names import EmbeddingName
from stores.parts import Part

PIXELS = EmbeddingName("pixels")
RANDOM = {"weights": "random:7"}
PUBLISHED = {"weights": "sha256:00", "weights_source": "https://example.org/weights"}
OWN_FILE = {"weights": "sha256:01", "weights_source": "file:/weights.pt"}


def records(n, start=0):
    return [ImageRecord(f"d/{i}.jpg", f"{i:064x}", 1, 2, 3, 4, "RGB") for i in range(start, start + n)]


def numbers(rows, dim=4, dtype="float16"):
    return (np.asarray(rows)[:, None] + np.arange(dim) / 8).astype(dtype)


def fill(store, entry, rows, absent=()):
    for block in sorted({row // store.block_rows for row in (*rows, *absent)}):
        here = [row for row in rows if row // store.block_rows == block]
        reasons = {row: f"no image {row}" for row in absent if row // store.block_rows == block}
        store.write_block(block, {entry.group: (np.array(here, int), numbers(here, entry.dim, entry.dtype))}, reasons)


@pytest.fixture
def store(tmp_path):
    store = EmbeddingStore.open(tmp_path / "e.zarr", create=True)
    store.add_images(records(300))
    return store


@pytest.fixture
def pixels(store):
    return store.create(PIXELS, "0a", dim=4, dtype="float16", provenance=RANDOM)


def test_beside_other_writers_a_block_costs_the_receipts_of_itself_and_not_of_all_others(tmp_path, monkeypatch):
    read, n_read, read_receipt = [], [], receipts.read_receipt
    monkeypatch.setattr(receipts, "read_receipt", lambda path: read.append(path) or read_receipt(path))
    store = EmbeddingStore.open(tmp_path / "e.zarr", create=True)
    images = [ImageRecord(f"{n}.jpg", "", 1, 0, 8, 8, "RGB") for n in range(20 * 64)]
    store.add_images(images[:64])
    store.add_images(images[64:])
    entry = store.create(EmbeddingName("hog"), "0a", dim=2, dtype="float32", provenance={})
    with store.part(Part(0, 1)):
        for block in range(20):
            rows = np.arange(block * 64, (block + 1) * 64)
            store.update_images([replace(images[row], sha256="aa") for row in rows])
            store.write_block(block, {entry.group: (rows, np.ones((64, 2), "float32"))}, {})
            n_read.append(len(read))
        assert store.committed(entry).all()
    assert n_read[19] - n_read[18] == n_read[2] - n_read[1]


def test_an_embedding_whose_removal_was_cut_short_stays_and_other_readers_see_it_again(store, pixels, monkeypatch):
    import zarr

    fill(store, pixels, range(10))
    store.consolidate()

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("stores.embeddings.discard", killed)
        with pytest.raises(KeyboardInterrupt):
            store.remove(pixels)
    assert pixels.group not in dict(zarr.open_group(store.path, mode="r").members())
    EmbeddingStore.open(store.path).consolidate()  # what the next writing command ends with
    assert pixels.group in dict(zarr.open_group(store.path, mode="r").members())
    assert len(EmbeddingStore.open(store.path)["pixels"].image_ids) == 10


def test_a_new_store_holds_nothing(tmp_path):
    store = EmbeddingStore.open(tmp_path / "e.zarr", create=True)
    assert (store.names, store.image_ids, store.images(), store.block_rows) == ([], [], {}, 0)


def test_images_keep_the_order_they_came_in_and_their_records(store):
    assert store.image_ids == [f"d/{i}.jpg" for i in range(300)]
    assert store.row_of["d/7.jpg"] == 7
    assert list(EmbeddingStore.open(store.path).images().values()) == records(300)


def test_a_table_with_some_records_replaced_has_the_bytes_of_one_written_at_once(store):
    new = {record.id: replace(record, sha256="f" * 64, mode="L") for record in records(300)[::7][::-1]}
    store.update_images(list(new.values()))
    table = store.path / "image/.embedctl/images-0.parquet"
    assert table.read_bytes() == image_table_bytes(new.get(record.id, record) for record in records(300))


def test_a_row_once_given_never_moves(store):
    store.add_images([*records(2, start=500), *records(3), *records(1, start=400)])
    assert store.image_ids[300:] == ["d/500.jpg", "d/501.jpg", "d/400.jpg"]
    assert EmbeddingStore.open(store.path).image_ids == store.image_ids


def test_nothing_is_committed_until_it_is_written(store, pixels):
    assert not store.committed(pixels).any() and store["pixels"].values.shape == (0, 4)


def test_rows_come_back_where_they_were_put(store, pixels):
    fill(store, pixels, [5, 6, 299], absent=[7, 250])
    for seen in (store, EmbeddingStore.open(store.path)):
        embedding = seen["pixels"]
        assert embedding.image_ids == ["d/5.jpg", "d/6.jpg", "d/299.jpg"]
        assert np.array_equal(embedding.values, numbers([5, 6, 299])) and embedding.values.dtype == np.float16
        assert np.array_equal(embedding.take([2, 0, -1]), numbers([299, 5, 299]))
        assert embedding.absent == {"d/7.jpg": "no image 7", "d/250.jpg": "no image 250"}
        assert np.flatnonzero(seen.committed(pixels)).tolist() == [5, 6, 299]
        entry = seen.entries()[0]
        assert (entry.n_committed, entry.n_absent, entry.dim, entry.dtype) == (3, 2, 4, "float16")


def test_a_chunk_that_grows_keeps_its_rows(store, pixels):
    fill(store, pixels, [0, 2], absent=[9])
    fill(store, pixels, [1, 3], absent=[8])
    assert np.array_equal(store["pixels"].values, numbers([0, 1, 2, 3]))
    assert store.absent(pixels) == {8: "no image 8", 9: "no image 9"}


def test_a_row_can_become_absent_and_an_absent_one_a_row(store, pixels):
    fill(store, pixels, [0, 1], absent=[2])
    fill(store, pixels, [2], absent=[1])
    assert store["pixels"].image_ids == ["d/0.jpg", "d/2.jpg"] and store.absent(pixels) == {1: "no image 1"}


def test_adding_images_grows_every_array_and_touches_no_row(store, pixels):
    other = store.create(EmbeddingName("hog"), "0a", dim=2, dtype="float32", provenance=RANDOM)
    fill(store, pixels, range(300))
    chunks = {path: path.stat().st_mtime_ns for path in store.path.rglob("values/c/*/0")}
    store.add_images(records(10, start=300))
    assert chunks == {path: path.stat().st_mtime_ns for path in chunks}
    assert store.committed(pixels).sum() == 300 and len(store.committed(other)) == 310
    fill(store, pixels, range(300, 310))
    assert np.array_equal(store["pixels"].values, numbers(range(310)))


def test_large_rows_are_spread_over_several_chunks_of_a_block(store, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_CHUNK_BYTES", 48 * 4 * 2)
    entry = store.create(PIXELS, "0a", dim=4, dtype="float16", provenance=RANDOM)
    fill(store, entry, range(0, 300, 2))
    fill(store, entry, range(1, 300, 2))
    assert len(list(store.path.rglob("values/c/*/0"))) == -(-300 // 48)
    assert np.array_equal(EmbeddingStore.open(store.path)["pixels"].values, numbers(range(300)))


@given(st.integers(1, 3_000_000), st.integers(1, 400_000))
def test_blocks_are_near_equal_and_chunks_divide_them(n_images, row_bytes):
    rows = block_rows_for(n_images)
    n_blocks = -(-n_images // rows)
    assert rows % 64 == 0 and rows <= (256 if n_images <= 4096 else 1024 if n_images <= 65_536 else 8192)
    assert n_blocks * rows - n_images < 64 * n_blocks + 64
    chunk = chunk_rows_for(rows, row_bytes)
    assert rows % chunk == 0 and (chunk * row_bytes <= blocks.MAX_CHUNK_BYTES or chunk % 2)


def test_making_room_twice_is_making_it_once(store, pixels):
    again = store.create(PIXELS, "0a", dim=4, dtype="float16", provenance={"date": "later"})
    assert again == pixels and again.provenance == RANDOM
    with pytest.raises(StoreMismatch, match="4 x float16, not 4 x float32"):
        store.create(PIXELS, "0a", dim=4, dtype="float32", provenance=RANDOM)


class TestWhatCannotBeWritten:
    @pytest.mark.parametrize("row", [-1, 192, 300])
    def test_rows_outside_the_block(self, store, pixels, row):
        with pytest.raises(ValueError, match="rows 0 to 191"):
            store.write_block(0, {pixels.group: (np.array([row]), numbers([0]))}, {})
        with pytest.raises(ValueError, match="rows 192 to 299"):
            store.write_block(1, {pixels.group: (np.array([]), numbers([0])[:0])}, {300: "not there"})

    def test_a_row_twice_or_with_numbers_and_a_reason(self, store, pixels):
        with pytest.raises(ValueError):
            store.write_block(0, {pixels.group: (np.array([1, 1]), numbers([1, 1]))}, {})
        with pytest.raises(ValueError):
            store.write_block(0, {pixels.group: (np.array([1]), numbers([1]))}, {1: "broken"})

    @pytest.mark.parametrize("values", [numbers([0], 5), numbers([0], 4, "float32"), numbers([0, 1])])
    def test_another_shape_or_type(self, store, pixels, values):
        with pytest.raises(ValueError, match=r"not \(1, 4\) float16"):
            store.write_block(0, {pixels.group: (np.array([0]), values)}, {})

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_numbers_that_are_none(self, store, pixels, value):
        values = numbers([0, 1])
        values[1, 2] = value
        with pytest.raises(ValueError, match=r"rows \[1\]"):
            store.write_block(0, {pixels.group: (np.array([0, 1]), values)}, {})
        assert not store.committed(pixels).any()

    def test_image_ids_that_cannot_be_kept(self, store):
        one = records(1)[0]
        with pytest.raises(ValueError):
            store.add_images([one, one])
        with pytest.raises(ValueError):
            store.add_images([replace(one, id="")])
        with pytest.raises(EmbedctlError, match="not Unicode"):
            store.add_images([replace(one, id="\udcff.jpg")])

    def test_an_embedding_before_the_images(self, tmp_path):
        with pytest.raises(ValueError, match="images before"):
            EmbeddingStore.open(tmp_path / "e.zarr", create=True).create(
                PIXELS, "0a", dim=4, dtype="float16", provenance={}
            )

    @pytest.mark.parametrize("key", ["", "../x", "a-b", "a b"])
    def test_a_key_that_is_no_key(self, store, key):
        with pytest.raises(ValueError):
            store.create(PIXELS, key, dim=4, dtype="float16", provenance={})


class TestNames:
    def entries(self, store, *provenances):
        for number, provenance in enumerate(provenances):
            store.create(PIXELS, f"{number}a", dim=4, dtype="float16", provenance=provenance)

    def test_the_only_one_needs_no_key(self, store):
        self.entries(store, RANDOM)
        assert store.names == ["pixels"] and store.resolve("pixels").key == store.resolve("pixels#0a").key == "0a"

    @pytest.mark.parametrize("other", [RANDOM, OWN_FILE, {**PUBLISHED, "imported": True}])
    def test_the_published_one_needs_none_either(self, store, other):
        self.entries(store, other, PUBLISHED)
        assert store.names == ["pixels#0a", "pixels"] and store.resolve("pixels").key == "1a"

    @pytest.mark.parametrize("both", [(RANDOM, RANDOM), (PUBLISHED, PUBLISHED), (RANDOM, OWN_FILE)])
    def test_of_several_one_has_to_choose(self, store, both):
        self.entries(store, *both)
        assert store.names == ["pixels#0a", "pixels#1a"]
        with pytest.raises(EmbedctlError, match="2 keys") as problem:
            store["pixels"]
        assert "pixels#0a" in problem.value.hint and "pixels#1a" in problem.value.hint

    def test_an_unknown_name_is_answered_with_the_closest(self, store):
        self.entries(store, RANDOM)
        with pytest.raises(UnknownName) as problem:
            store["pixel"]
        assert problem.value.hint == "did you mean 'pixels'?"
        with pytest.raises(UnknownName) as problem:
            store["pixels#1b"]
        assert "pixels#0a" in problem.value.hint

    def test_layers_poolings_and_views_survive_the_folder_name(self, store):
        name = "dinov2-vitb14:blocks.7.mean@blur-9"
        store.create(EmbeddingName.parse(name), "0a1b", dim=4, dtype="float32", provenance={})
        assert (store.path / "dinov2-vitb14~blocks.7.mean@blur-9-0a1b").is_dir()
        assert EmbeddingStore.open(store.path).names == [name]


def test_removing_drops_one_embedding_and_leaves_the_others(store, pixels):
    hog = store.create(EmbeddingName("hog"), "0a", dim=2, dtype="float32", provenance=RANDOM)
    fill(store, hog, range(300))
    store.remove(pixels)
    for seen in (store, EmbeddingStore.open(store.path)):
        assert seen.names == ["hog"] and seen["hog"].values.shape == (300, 2)
    store.create(PIXELS, "0a", dim=4, dtype="float16", provenance=RANDOM)
    assert store["pixels"].values.shape == (0, 4), "rows of the removed one must not come back"


def test_a_changed_image_loses_its_rows_and_only_its_rows(store, pixels):
    fill(store, pixels, range(299), absent=[299])
    changed = [replace(records(300)[row], sha256="ff") for row in (3, 250, 299)]
    touched = replace(records(300)[4], mtime_ns=99)
    store.update_images([*changed, touched])
    assert np.flatnonzero(~store.committed(pixels)).tolist() == [3, 250, 299] and store.absent(pixels) == {}
    assert store.images()["d/3.jpg"].sha256 == "ff" and store.images()["d/4.jpg"] == touched
    import zarr

    assert np.isnan(zarr.open_array(store.path / pixels.group / "values", mode="r")[3]).all()
    with pytest.raises(ValueError, match="nobody"):
        store.update_images([replace(touched, id="nobody.jpg")])


def test_what_is_learnt_of_a_block_is_written_into_the_table_of_its_rows_and_no_other(tmp_path):
    store = EmbeddingStore.open(tmp_path / "many.zarr", create=True)
    everything = records(2500)
    for stop in (10, 1020, 2048, 2500):  # within a table, over its end, up to one's end, into a new one
        store.add_images(everything[:stop])
    tables = [store.path / f"image/.embedctl/images-{number}.parquet" for number in range(3)]
    before = [table.stat().st_ino for table in tables]
    learnt = replace(everything[1500], sha256="ff")
    store.update_images([learnt])
    assert [table.stat().st_ino != inode for table, inode in zip(tables, before, strict=True)] == [False, True, False]
    assert list(EmbeddingStore.open(store.path).images().values()) == [
        learnt if record.id == learnt.id else record for record in everything
    ]


def test_things_others_put_into_the_folder_are_not_embeddings(store, pixels):
    import zarr

    zarr.create_group(store.path / "notes")
    zarr.create_array(store.path / "notes-1" / "values", shape=(3,), dtype="f4")
    (store.path / "CON-0a").mkdir()
    (store.path / "read me.txt").touch()
    assert EmbeddingStore.open(store.path).names == ["pixels"]


@pytest.mark.parametrize("damage", ["cut", "lost", "swapped"])
def test_a_damaged_chunk_is_never_numbers_and_never_built_upon(store, pixels, damage):
    fill(store, pixels, range(0, 300, 2))
    chunk, other = (store.path / pixels.group / "values" / "c" / n / "0" for n in "01")
    if damage == "cut":
        chunk.write_bytes(chunk.read_bytes()[:-10])
    elif damage == "lost":
        chunk.unlink()
    else:
        shutil.copy(other, chunk)
    seen = EmbeddingStore.open(store.path)
    for read in (lambda: seen["pixels"].values, lambda: seen["pixels"].take([0]), lambda: fill(store, pixels, [1])):
        with pytest.raises(DamagedStore):
            read()
    fill(store, pixels, [193])


def test_a_flipped_bit_is_not_carried_into_a_chunk_that_grows(store, pixels):
    fill(store, pixels, [0])
    chunk = store.path / pixels.group / "values" / "c" / "0" / "0"
    content = bytearray(chunk.read_bytes())
    content[1000] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DamagedStore):
        fill(store, pixels, [1])


def test_a_damaged_receipt_is_named(store, pixels):
    fill(store, pixels, [0])
    store.create(EmbeddingName("hog"), "0a", dim=2, dtype="float32", provenance=RANDOM)
    receipt = next(store.path.rglob("receipts/*.json"))
    receipt.write_bytes(receipt.read_bytes().replace(b"[", b"{", 1))
    seen = EmbeddingStore.open(store.path)
    with pytest.raises(DamagedStore, match="000000.json"):
        seen["pixels"]
    assert seen.names == ["hog", "pixels"] and len(seen["hog"]) == 0, "the others can still be read"


@pytest.mark.parametrize("node", ["attributes", "values"])
def test_metadata_that_says_too_little_is_damage(store, pixels, node):
    folder = store.path / pixels.group / ("" if node == "attributes" else "values")
    content = json.loads((folder / "zarr.json").read_text())
    for name in ("attributes", "shape"):
        content[name] = {} if name == "attributes" else [300]
    content["chunk_grid"] = {"name": "regular", "configuration": {"chunk_shape": [192]}}
    (folder / "zarr.json").write_text(json.dumps(content))
    with pytest.raises(DamagedStore):
        EmbeddingStore.open(store.path)


def test_a_lost_image_table_is_damage(store):
    next(store.path.rglob("images-0.parquet")).unlink()
    with pytest.raises(DamagedStore, match=r"images-0.parquet"):
        EmbeddingStore.open(store.path).images()


def test_a_reader_keeps_its_view_while_a_writer_goes_on(store, pixels):
    fill(store, pixels, [0, 1])
    reader = EmbeddingStore.open(store.path)["pixels"]
    fill(store, pixels, [2])
    store.add_images(records(5, start=300))
    assert np.array_equal(reader.values, numbers([0, 1])) and reader.image_ids == ["d/0.jpg", "d/1.jpg"]


def test_a_reader_that_looks_late_sees_no_row_of_an_image_it_does_not_know(store, pixels):
    reader = EmbeddingStore.open(store.path)
    store.add_images(records(5, start=300))
    fill(store, pixels, [0, 299, 300, 304], absent=[1, 303])
    assert reader["pixels"].image_ids == ["d/0.jpg", "d/299.jpg"] and reader.absent(pixels) == {1: "no image 1"}
    assert np.array_equal(reader["pixels"].values, numbers([0, 299])) and reader.committed(pixels).sum() == 2
    assert (reader.entries()[0].n_committed, reader.entries()[0].n_absent) == (2, 1)


def test_many_blocks_under_one_lock_and_no_second_writer(store, pixels):
    with store.lock():
        fill(store, pixels, range(300))
        with pytest.raises(StoreLocked, match=f"process {os.getpid()}"):
            fill(EmbeddingStore.open(store.path), pixels, [0])
    fill(EmbeddingStore.open(store.path), pixels, [0])


def test_lazy_views_hold_the_same_numbers(store, pixels):
    fill(store, pixels, range(10, 290), absent=[3])
    embedding = store["pixels"]
    assert np.array_equal(embedding.to_dask().compute(), embedding.values)
    array = embedding.to_xarray()
    assert array.dims == ("image", "feature") and np.array_equal(array.sel(image="d/12.jpg"), numbers([12])[0])
    assert store.create(EmbeddingName("hog"), "0a", dim=2, dtype="float32", provenance={}).n_committed == 0
    assert store["hog"].to_dask().compute().shape == (0, 2)


def test_reading_needs_no_write_and_no_heavy_import(store, pixels):
    fill(store, pixels, range(300))
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    code = """
import sys
from stores.embeddings import EmbeddingStore
store = EmbeddingStore.open(sys.argv[1])
store.names, store["pixels"].take([0])
print({"zarr", "pyarrow", "xarray", "dask", "torch", "scipy"} & set(sys.modules) or "none")
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(store.path)], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert ran.stdout == "none\n", ran.stderr
    assert before == {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}


def test_a_full_disk_at_any_write_is_code_7_and_loses_nothing(tmp_path):
    """The disk fills up at the n-th write and stays full; then space is freed and the work is done again."""
    import errno

    from tests.crashes import PowerCut, extract, files, look_at_embeddings

    def full(name, arguments):
        if name not in ("unlink", "rmdir"):
            raise OSError(errno.ENOSPC, "no space left on device")

    extract(tmp_path / "before", 66)
    shutil.copytree(tmp_path / "before", tmp_path / "whole")
    with PowerCut() as count:
        extract(tmp_path / "whole", 70)
    for n in range(1, count.n, 3):
        shutil.copytree(tmp_path / "before", tmp_path / "full")
        try:
            with PowerCut(full, at=n):
                extract(tmp_path / "full", 70)
        except CannotWrite as problem:
            assert problem.exit_code == 7 and "full" in str(problem)  # noqa: PT017
        look_at_embeddings(tmp_path / "full", kept=66)
        with PowerCut():
            extract(tmp_path / "full", 70)
        assert files(tmp_path / "full") == files(tmp_path / "whole")
        shutil.rmtree(tmp_path / "full")


class Model:
    """What the store should hold, in plain dictionaries."""

    def __init__(self):
        self.ids, self.rows, self.absent = [], {}, {}


@given(st.data())
@settings(max_examples=15)
def test_any_order_of_writing_growing_changing_and_reopening_is_what_a_dictionary_says(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("model") / "e.zarr"
    store, model = EmbeddingStore.open(path, create=True), Model()
    from tests.crashes import PowerCut

    with PowerCut():  # without flushing: this is not about crashes
        store.add_images(records(130))
        entry = store.create(PIXELS, "0a", dim=2, dtype="float32", provenance={})
        model.ids = [record.id for record in records(130)]
        for step in range(data.draw(st.integers(1, 8))):
            act = data.draw(st.sampled_from(["write", "write", "grow", "change", "reopen"]))
            if act == "write":
                block = data.draw(st.integers(0, (len(model.ids) - 1) // store.block_rows))
                start = block * store.block_rows
                end = min(start + store.block_rows, len(model.ids))
                rows = data.draw(st.lists(st.integers(start, end - 1), unique=True, max_size=20))
                cut = data.draw(st.integers(0, len(rows)))
                values = np.full((cut, 2), step, "float32")
                why = {row: f"step {step}" for row in rows[cut:]}
                store.write_block(block, {entry.group: (np.array(rows[:cut], int), values)}, why)
                for row in rows[:cut]:
                    model.rows[row] = float(step)
                    model.absent.pop(row, None)
                for row, reason in why.items():
                    model.absent[row] = reason
                    model.rows.pop(row, None)
            elif act == "grow":
                new = records(data.draw(st.integers(1, 70)), start=len(model.ids))
                store.add_images(new)
                model.ids += [record.id for record in new]
            elif act == "change":
                row = data.draw(st.integers(0, len(model.ids) - 1))
                store.update_images([replace(records(1, start=row)[0], sha256=f"step {step}")])
                model.rows.pop(row, None)
                model.absent.pop(row, None)
            else:
                store = EmbeddingStore.open(path)
    assert store.image_ids == model.ids
    assert np.flatnonzero(store.committed(entry)).tolist() == sorted(model.rows)
    assert store.absent(entry) == dict(sorted(model.absent.items()))
    assert store["pixels"].values[:, 0].tolist() == [model.rows[row] for row in sorted(model.rows)]
