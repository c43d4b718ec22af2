"""What we write by hand is what zarr writes."""

import json

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from stores.codecs import decode_strings, encode_rows, encode_strings
from stores.commits import put_json
from stores.consolidation import consolidated
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import REMOVE_AND_REDO, DamagedStore, EmbedctlError, StoreMismatch
from stores.layout import array_node, group_node, read_array, read_node

OPTIONS = {"compressors": [Crc32cCodec()], "config": {"write_empty_chunks": True}}


@pytest.mark.parametrize(
    "dtype, fill", [("float16", np.nan), ("float32", np.nan), ("float64", np.nan), ("int16", -1), ("bool", False)]
)
def test_numbers_are_written_as_zarr_writes_them(tmp_path, dtype, fill):
    shape, chunks, dims = (5, 3, 2), (4, 3, 2), ("image", "channel", "time")
    array = zarr.create_array(
        tmp_path / "z", shape=shape, chunks=chunks, dtype=dtype, fill_value=fill, dimension_names=dims, **OPTIONS
    )
    rows = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    array[:] = rows
    assert array_node(shape, dtype, chunks, dims) == json.loads((tmp_path / "z" / "zarr.json").read_text())
    assert encode_rows(rows[:4]) == (tmp_path / "z" / "c" / "0" / "0" / "0").read_bytes()


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), max_size=6))
def test_strings_are_written_as_zarr_writes_them(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("strings") / "z"
    array = zarr.create_array(folder, shape=(7,), chunks=(7,), dtype=str, dimension_names=("image",), **OPTIONS)
    array[:] = np.array([*texts, *[""] * (7 - len(texts))], dtype=object)
    chunk = (folder / "c" / "0").read_bytes()
    assert array_node((7,), "string", (7,), ("image",)) == json.loads((folder / "zarr.json").read_text())
    assert encode_strings(texts, 7) == chunk
    assert decode_strings(chunk, len(texts)) == texts


def test_a_string_chunk_with_a_flipped_bit_is_not_read():
    chunk = bytearray(encode_strings(["a.jpg"], 2))
    chunk[9] ^= 1
    with pytest.raises(ValueError):
        decode_strings(bytes(chunk))


def test_the_root_is_consolidated_as_zarr_does_it(tmp_path):
    put_json(tmp_path / "s" / "zarr.json", group_node({"embedctl": {}}))
    put_json(tmp_path / "s" / "b" / "zarr.json", group_node({"n": 1}))
    put_json(tmp_path / "s" / "b" / "deep" / "zarr.json", group_node({}))
    for place in ("a", "b/values", "b/deep/values"):
        put_json(tmp_path / "s" / place / "zarr.json", array_node((4, 2), "float16", (4, 2), ("image", "feature")))
    ours = consolidated(tmp_path / "s")
    with pytest.warns(UserWarning, match="not part"):
        zarr.consolidate_metadata(tmp_path / "s")
    assert ours == json.loads((tmp_path / "s" / "zarr.json").read_text())
    without = consolidated(tmp_path / "s", without="b")["consolidated_metadata"]["metadata"]
    assert list(without) == ["a"]


@pytest.mark.parametrize("store, made_by", [(EmbeddingStore, "embedctl extract"), (EpochStore, "embedctl preprocess")])
class TestOpening:
    def test_nothing_there_says_which_command_makes_one(self, tmp_path, store, made_by):
        with pytest.raises(EmbedctlError, match="no store at") as problem:
            store.open(tmp_path / "nowhere")
        assert problem.value.exit_code == 2 and made_by in problem.value.hint

    @pytest.mark.parametrize("create", [True, False])
    def test_a_folder_of_something_else_is_left_alone(self, tmp_path, store, made_by, create):
        (tmp_path / "photograph.jpg").touch()
        with pytest.raises(EmbedctlError, match="is not a store"):
            store.open(tmp_path, create=create)
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_file_is_not_a_store(self, tmp_path, store, made_by):
        (tmp_path / "e.zarr").touch()
        with pytest.raises(EmbedctlError, match="is not a store"):
            store.open(tmp_path / "e.zarr", create=True)

    def test_someone_elses_zarr_is_not_ours(self, tmp_path, store, made_by):
        zarr.create_group(tmp_path / "e.zarr", attributes={"kind": "embeddings"})
        with pytest.raises(EmbedctlError, match="not a store of embedctl"):
            store.open(tmp_path / "e.zarr")

    def test_the_other_kind_of_store_is_named(self, tmp_path, store, made_by):
        other = EpochStore if store is EmbeddingStore else EmbeddingStore
        other.open(tmp_path / "s.zarr", create=True)
        with pytest.raises(EmbedctlError, match=r"holds (epochs|embeddings), not (epochs|embeddings)"):
            store.open(tmp_path / "s.zarr")

    def test_a_store_of_a_newer_embedctl_is_not_guessed_at(self, tmp_path, store, made_by):
        store.open(tmp_path / "s.zarr", create=True)
        node = read_node(tmp_path / "s.zarr")
        node["attributes"]["embedctl"]["format"] = 2
        put_json(tmp_path / "s.zarr" / "zarr.json", node)
        with pytest.raises(StoreMismatch, match="format 2") as problem:
            store.open(tmp_path / "s.zarr")
        assert "newest" in problem.value.hint

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000])
    def test_metadata_that_is_no_metadata_is_damage(self, tmp_path, store, made_by, content):
        store.open(tmp_path / "s.zarr", create=True)
        (tmp_path / "s.zarr" / "zarr.json").write_bytes(content)
        with pytest.raises(DamagedStore) as problem:
            store.open(tmp_path / "s.zarr")
        assert problem.value.exit_code == 4 and problem.value.hint == REMOVE_AND_REDO

    def test_making_one_where_one_is_opens_it(self, tmp_path, store, made_by):
        store.open(tmp_path / "deep" / "s.zarr", create=True)
        store.open(str(tmp_path / "deep" / "s.zarr"), create=True)
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["s.zarr"]

    def test_an_empty_folder_becomes_one(self, tmp_path, store, made_by):
        (tmp_path / "s.zarr").mkdir()
        assert "s.zarr" in repr(store.open(tmp_path / "s.zarr", create=True))


HOSTILE = {
    "shape": [[-1, 2], ["4", 2], [10**30, 2], []],
    "data_type": ["object", "M8[s]", {"name": "x"}, "float128"],
    "codecs": [[], [{}], "bytes"],
    "chunk_grid": [{}, {"name": "regular", "configuration": {"chunk_shape": [0, 2]}}],
    "chunk_key_encoding": [{}],
}


@pytest.mark.parametrize("field, value", [(field, value) for field, values in HOSTILE.items() for value in values])
def test_hostile_metadata_is_damage_and_nothing_else(tmp_path, field, value):
    node = array_node((4, 2), "float16", (4, 2), ("image", "feature")) | {field: value}
    put_json(tmp_path / "zarr.json", node)
    if value == [10**30, 2]:  # only wrong once its rows are asked for
        assert read_array(tmp_path).shape == (10**30, 2)
        return
    with pytest.raises(DamagedStore):
        read_array(tmp_path)
