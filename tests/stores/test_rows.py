"""Rows read by memory map are the rows zarr reads; a wrong chunk never becomes numbers."""

import pickle
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from stores import rows as rows_module
from stores.errors import REMOVE_AND_REDO, DamagedStore, EmbedctlError
from stores.mapping import map_together
from stores.rows import RawRows

PAGE = 4096


def write(folder, shape, chunk, dtype="float16", fill=np.nan, compressors=None):
    array = zarr.create_array(
        folder,
        shape=shape,
        chunks=(chunk, *shape[1:]),
        dtype=dtype,
        fill_value=fill,
        compressors=[Crc32cCodec()] if compressors is None else compressors,
        config={"write_empty_chunks": True},
    )
    array[:] = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    return array[:]


def vouchers(folder):
    return {
        path.relative_to(folder.parent).as_posix(): {"tail": path.read_bytes()[-4:].hex(), "rows": [[0, 9]]}
        for path in (folder / "c").rglob("*")
        if path.is_file()
    }


@given(st.data())
@settings(max_examples=30)
def test_whatever_zarr_wrote_is_read_as_zarr_reads_it(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("array") / "a"
    n, chunk = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20))
    row = data.draw(st.sampled_from([(), (3,), (2, 3), (PAGE // 4,)]))
    expected = write(folder, (n, *row), chunk, data.draw(st.sampled_from(["float16", "float32", "int16"])), fill=0)
    raw = RawRows(folder)
    start, stop = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    asked = data.draw(st.lists(st.integers(-n, n - 1), max_size=50))
    assert raw.shape == expected.shape and raw.dtype == expected.dtype and len(raw) == n
    assert np.array_equal(raw.read(start, stop), expected[start:stop])
    assert np.array_equal(raw.take(asked), expected[np.array(asked, dtype=int)])


@pytest.mark.parametrize("mapped", [True, False])
def test_one_mapping_and_chunk_by_chunk_are_the_same(tmp_path, monkeypatch, mapped):
    expected = write(tmp_path / "a", (300, PAGE // 32), 64)
    if not mapped:
        monkeypatch.setattr(rows_module, "map_together", lambda files, size: None)
    raw = RawRows(tmp_path / "a")
    asked = np.random.default_rng(0).integers(-300, 300, 1000)
    assert np.array_equal(raw.take(asked), expected[asked])
    assert (raw._view is not None) == mapped
    assert raw.take([]).shape == (0, PAGE // 32)
    with pytest.raises(IndexError):
        raw.take([300])
    with pytest.raises(IndexError):
        raw.take([-301])


def test_what_is_returned_belongs_to_the_caller(tmp_path):
    write(tmp_path / "a", (64, PAGE // 32), 64)
    raw = RawRows(tmp_path / "a")
    for copy in (raw.take([0, 1]), raw.read(0, 2)):
        copy[:] = 7
    assert not (raw.take([0]) == 7).any()


def test_the_numbers_outlive_the_reader(tmp_path):
    expected = write(tmp_path / "a", (64, PAGE // 32), 64)
    mapped = map_together([tmp_path / "a" / "c" / "0" / "0"], 64 * PAGE // 16)
    assert mapped is not None and not mapped.flags.writeable
    view = mapped.view(np.float16)[:128]
    del mapped
    assert np.array_equal(view, expected[0])


def test_chunks_that_are_not_whole_pages_are_not_mapped_together(tmp_path):
    (tmp_path / "x").write_bytes(bytes(3 * PAGE))
    assert map_together([tmp_path / "x"], 1000) is None
    assert map_together([tmp_path / "x"], 4 * PAGE) is None, "reading beyond the end of a file kills the process"
    assert map_together([], PAGE) is None


def test_rows_nobody_vouches_for_are_never_read(tmp_path):
    expected = write(tmp_path / "a", (100, PAGE // 32), 32)
    known = vouchers(tmp_path / "a")
    del known["a/c/1/0"]
    raw = RawRows(tmp_path / "a", known)
    for read in (lambda: raw.read(0, 64), lambda: raw.take([0, 40])):
        with pytest.raises(DamagedStore, match="no receipt"):
            read()
    assert np.array_equal(raw.take([0, 99]), expected[[0, 99]])


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path):
    path.write_bytes(b"")


def _swap(path):
    other = path.parents[1] / "2" / path.name
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), _truncate, _empty, _swap], ids="lost cut empty swapped".split()
)
@pytest.mark.parametrize("width", [PAGE // 32, 5])
def test_a_wrong_chunk_is_damage_and_never_numbers(tmp_path, damage, width):
    write(tmp_path / "a", (100, width), 32)
    known = vouchers(tmp_path / "a")
    damage(tmp_path / "a" / "c" / "1" / "0")
    for read in (lambda raw: raw.read(40, 41), lambda raw: raw.take([40]), lambda raw: raw.take([0, 40])):
        with pytest.raises(DamagedStore) as problem:
            read(RawRows(tmp_path / "a", known))
        assert problem.value.hint == REMOVE_AND_REDO


def test_a_chunk_that_grew_since_is_read_after_another_look_at_the_receipts(tmp_path):
    write(tmp_path / "a", (64, 5), 32)
    before = vouchers(tmp_path / "a")
    raw = RawRows(tmp_path / "a", before, look_again=lambda: vouchers(tmp_path / "a"))
    zarr.open_array(tmp_path / "a")[40:64] = 2.0
    assert (raw.take([50]) == 2).all()


def test_a_chunk_that_lost_rows_since_is_not_read(tmp_path):
    write(tmp_path / "a", (64, 5), 32)
    before = vouchers(tmp_path / "a")

    def look_again():
        return {name: {**voucher, "rows": [[0, 4], [5, 9]]} for name, voucher in vouchers(tmp_path / "a").items()}

    raw = RawRows(tmp_path / "a", before, look_again)
    zarr.open_array(tmp_path / "a")[4] = np.nan
    with pytest.raises(EmbedctlError, match="no longer holds the rows") as problem:
        raw.take([4])
    assert problem.value.exit_code == 2 and "open the store again" in problem.value.hint


def test_an_array_that_was_removed_since_is_not_damage(tmp_path):
    write(tmp_path / "a", (64, 5), 32)
    raw = RawRows(tmp_path / "a", vouchers(tmp_path / "a"), look_again=dict)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(EmbedctlError, match="no longer holds the rows") as problem:
        raw.take([4])
    assert problem.value.exit_code == 2


def test_a_chunk_that_grows_twice_while_it_is_opened_is_read(tmp_path):
    write(tmp_path / "a", (64, 5), 32)
    array, looks = zarr.open_array(tmp_path / "a"), []

    def look_again():
        looks.append(len(looks))
        if len(looks) == 1:
            array[50:64] = 3.0
        return vouchers(tmp_path / "a")

    raw = RawRows(tmp_path / "a", vouchers(tmp_path / "a"), look_again)
    array[40:50] = 2.0
    assert (raw.take([45]) == 2).all() and (raw.take([55]) == 3).all() and len(looks) == 2


@pytest.mark.parametrize("width", [PAGE // 32, 5])
def test_rows_that_came_later_are_out_of_range(tmp_path, width):
    expected = write(tmp_path / "a", (300, width), 64)
    raw = RawRows(tmp_path / "a", vouchers(tmp_path / "a"), n_rows=70)
    assert len(raw) == 70 and raw.shape == (70, width)
    assert np.array_equal(raw.take([-1, 69, 0]), expected[[69, 69, 0]]) and len(raw.read(60, 300)) == 10
    for row in (70, -71):
        with pytest.raises(IndexError):
            raw.take([row])


def test_a_file_that_is_replaced_between_check_and_mapping_is_not_mapped(tmp_path, monkeypatch):
    expected = write(tmp_path / "a", (64, PAGE // 32), 64)
    raw = RawRows(tmp_path / "a", vouchers(tmp_path / "a"))

    def late(files, size):
        zarr.open_array(tmp_path / "a")[4] = np.nan
        return map_together(files, size)

    monkeypatch.setattr(rows_module, "map_together", late)
    assert np.array_equal(raw.take([4]), expected[[4]])


def test_another_encoding_is_refused(tmp_path):
    write(tmp_path / "a", (100, 5), 32, compressors="auto")
    with pytest.raises(DamagedStore, match="packed"):
        RawRows(tmp_path / "a")


def test_a_copy_for_another_process_carries_no_numbers(tmp_path):
    expected = write(tmp_path / "a", (300, PAGE // 32), 64)
    raw = RawRows(tmp_path / "a", vouchers(tmp_path / "a"))
    raw.take([0])
    raw.read(0, 300)
    sent = pickle.dumps(raw)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).take([299]), expected[[299]])
