"""Several commands on one store, each at its own blocks: the bytes are those of one command alone."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, StoreLocked
from stores.parts import WHOLE, Part
from stores.repair import repair
from tests.photos import write_photographs
from tests.stored_files import files

CONTROLS = ("pixels", "colour-histogram")
HALVES = (Part(0, 2), Part(1, 2))


@pytest.fixture(scope="module")
def request_of(tmp_path_factory):
    """Images whose rows make three blocks, one of them bad; and a function from the name of a store to a request."""
    folder = tmp_path_factory.mktemp("shards")
    write_photographs(folder / "images", 5, sizes=False)
    extract(request_for(folder, "begun.zarr"))  # a store that begins with few images has blocks of 64 rows
    write_photographs(folder / "images", 135, first=5, sizes=False)
    (folder / "images/concept_001/photo_0009.jpg").write_bytes(b"no image")

    def begun(store: str) -> ExtractRequest:
        shutil.copytree(folder / "begun.zarr", folder / store)
        return request_for(folder, store)

    return begun


def request_for(folder: Path, store: str) -> ExtractRequest:
    return ExtractRequest(models=CONTROLS, images=folder / "images", store=folder / store, batch_size=16)


@pytest.fixture(scope="module")
def whole(request_of) -> dict[str, bytes]:
    request = request_of("whole.zarr")
    assert extract(request).written == 2 * 134
    return files(request.store)


def test_shards_one_after_the_other_write_the_files_of_one_command(request_of, whole):
    request = request_of("one-by-one.zarr")
    reports = [extract(replace(request, shard=shard)) for shard in HALVES]
    assert [report.written for report in reports] == [2 * (64 - 5 - 1 + 12), 2 * 64]
    assert files(request.store) == whole
    assert extract(replace(request, shard=HALVES[0])).n_read == 0


def test_of_shards_that_overlap_the_second_is_refused_and_a_whole_command_too(request_of):
    request = request_of("locked.zarr")
    with EmbeddingStore.open(request.store).part(Part(0, 2)):
        for shard in (Part(0, 2), Part(2, 4), Part(1, 3), None):
            with pytest.raises(StoreLocked, match=r"shard 0/2") as problem:
                extract(replace(request, shard=shard))
            assert problem.value.exit_code == 5 and "process" in str(problem.value)
        assert extract(replace(request, shard=Part(1, 4))).written == 2 * 64
    assert extract(request).written == 2 * (134 - 64)


def test_a_store_is_not_repaired_while_a_shard_writes(request_of):
    request = request_of("damaged.zarr")
    next(request.store.glob("pixels-*/values/c/0/0")).write_bytes(b"")
    with EmbeddingStore.open(request.store).part(HALVES[1]), pytest.raises(StoreLocked, match="shard 1/2"):
        repair(request.store, "embeddings")


def test_who_leaves_last_consolidates(request_of):
    request = request_of("last.zarr")
    first, second = EmbeddingStore.open(request.store), EmbeddingStore.open(request.store)
    with first.part(HALVES[0]):
        extract(replace(request, models=("hog",), shard=HALVES[1]))
        assert not second.is_consolidated
    assert EmbeddingStore.open(request.store).is_consolidated


def test_a_shard_writes_no_block_of_another(request_of):
    store = EmbeddingStore.open(request_of("mine.zarr").store)
    with store.part(HALVES[1]), pytest.raises(ValueError, match="not of part 1/2"):
        store.write_block(0, {}, {})


@pytest.mark.parametrize("option", ["overwrite", "refresh"])
def test_a_shard_does_not_change_rows_of_others(request_of, option):
    request = request_of(f"{option}.zarr")
    with pytest.raises(EmbedctlError, match=f"--{option} changes rows"):
        extract(replace(request, shard=HALVES[0], **{option: True}))


def test_every_block_is_in_one_part_of_each_division_and_overlap_is_a_shared_block():
    parts = [Part(number, of) for of in range(1, 7) for number in range(of)]
    for one in parts:
        blocks = {block for block in range(60) if block in one}
        assert all(one.overlaps(other) == any(block in other for block in blocks) for other in parts)
    assert all(block in WHOLE for block in range(60))


@pytest.mark.parametrize("text", ["2/2", "1", "a/b", "-1/2", "0/0", "1/2/3", ""])
def test_what_is_no_shard_is_refused_with_an_example(text):
    with pytest.raises(EmbedctlError) as problem:
        Part.parse(text)
    assert "0/4" in problem.value.hint and problem.value.exit_code == 2


def test_a_shard_sees_what_others_have_committed_and_added_since_it_began(request_of):
    store = EmbeddingStore.open(request_of("beside.zarr").store)
    with store.part(HALVES[1]):
        with store.lock():
            before = store.resolve("pixels").n_committed, store.n_images
        extract(replace(request_for(store.path.parent, "beside.zarr"), shard=HALVES[0]))
        with store.lock():
            assert (store.resolve("pixels").n_committed, store.n_images) == (before[0] + 64 - 6 + 12, before[1] + 135)
            assert store.image_ids == EmbeddingStore.open(store.path).image_ids
