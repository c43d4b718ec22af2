"""`embedctl merge` and `embedctl remove`: what two stores have together, and what is left of one."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from embedctl.cli import app
from stores.embeddings import EmbeddingStore, ImageRecord
from stores.errors import CannotWrite, EmbedctlError, StoreLocked, StoreMismatch
from stores.merge import merge
from stores.names import EmbeddingName
from stores.parts import Part
from tests.crashes import preprocess, train
from tests.damage import damages

FACTS = {"weights": "random:7", "threads": 1, "device": "cpu", "form": "plain"}


def make(path, images, names=("hog",), absent=(), sha256="aa", facts=FACTS, shift=0.0):
    """Write a store in which the row of an image is its number."""
    store = EmbeddingStore.open(path, create=True)
    store.add_images([ImageRecord(f"{n}.jpg", sha256, 1, 0, 8, 8, "RGB") for n in images])
    for name in names:
        entry = store.create(EmbeddingName(name), "0a", dim=3, dtype="float32", provenance=facts)
        for block in range(-(-len(images) // store.block_rows)):
            here = range(block * store.block_rows, min((block + 1) * store.block_rows, len(images)))
            rows = np.array([row for row in here if images[row] not in absent], int)
            values = np.array([[images[row] + shift] * 3 for row in rows], "float32").reshape(-1, 3)
            store.write_block(block, {entry.group: (rows, values)}, {r: "bad" for r in here if images[r] in absent})
    store.consolidate()
    return path


def rows_of(path, name="hog"):
    stored = EmbeddingStore.open(path)[name]
    return dict(zip(stored.image_ids, stored.values[:, 0].tolist(), strict=True)), stored.absent


def test_what_one_store_lacks_comes_from_the_other_and_nothing_else_changes(tmp_path):
    a = make(tmp_path / "a.zarr", range(100), ("hog", "pixels"), absent={7, 50})
    b = make(tmp_path / "b.zarr", range(300, 30, -1), ("hog", "clip-vitb32"), absent={60, 200})
    before, other = rows_of(a, "pixels"), {file: file.read_bytes() for file in b.rglob("*") if file.is_file()}
    told = merge(a, b, dry_run=True)
    assert rows_of(a, "pixels") == before and merge(a, b) == told
    assert told.images == 201 and {one.name: (one.rows, one.already, one.absent) for one in told.embeddings} == {
        "hog#0a": (201, 67, 1),
        "clip-vitb32#0a": (268, 0, 2),
    }
    rows, absent = rows_of(a)
    assert rows == {f"{n}.jpg": n for n in range(301) if n not in {7, 200}} and set(absent) == {"7.jpg", "200.jpg"}
    assert rows_of(a, "clip-vitb32")[0] == rows_of(b, "clip-vitb32")[0] and rows_of(a, "pixels")[0] == before[0]
    assert EmbeddingStore.open(a).is_consolidated and damages(tmp_path) == []
    assert {file: file.read_bytes() for file in b.rglob("*") if file.is_file()} == other
    assert merge(a, b).bytes == 0


def test_a_part_of_a_store_that_shards_wrote_is_completed_by_the_rest(tmp_path):
    a = make(tmp_path / "a.zarr", range(70))
    b = shutil.copytree(a, tmp_path / "b.zarr")
    for number, path in enumerate((a, b)):
        store = EmbeddingStore.open(path)
        store.add_images([ImageRecord(f"{n}.jpg", "aa", 1, 0, 8, 8, "RGB") for n in range(70, 300)])
        with store.part(Part(number, 2)):
            for block in (n for n in range(3) if n % 2 == number):
                here = [r for r in range(block * 128, min(block * 128 + 128, 300)) if r >= 70]
                values = np.repeat(np.array(here, "float32")[:, None], 3, 1)
                store.write_block(block, {"hog-0a": (np.array(here), values)}, {})
    merge(a, b)
    assert rows_of(a)[0] == {f"{n}.jpg": n for n in range(300)} and damages(tmp_path) == []


@pytest.mark.parametrize(
    ("how", "kind", "says"),
    [
        ({"sha256": "bb"}, EmbedctlError, "other content in .*'0.jpg', '1.jpg', .* and 65 more"),
        ({"shift": 1.0}, EmbedctlError, "'hog#0a' has other numbers of '0.jpg'"),
        ({"facts": FACTS | {"device": "cuda"}}, StoreMismatch, "device = cpu here, cuda there"),
        ({"facts": FACTS | {"form": "folded"}}, StoreMismatch, "form = plain here, folded there"),
    ],
)
def test_stores_that_contradict_each_other_are_refused_before_anything_is_written(tmp_path, how, kind, says):
    a, b = make(tmp_path / "a.zarr", range(70)), make(tmp_path / "b.zarr", range(90), **how)
    before = {file: file.read_bytes() for file in a.rglob("*") if file.is_file()}
    with pytest.raises(kind, match=says) as problem:
        merge(a, b)
    assert problem.value.exit_code == 2 and problem.value.hint
    assert {file: file.read_bytes() for file in a.rglob("*") if file.is_file()} == before


def test_a_merge_needs_the_whole_store_two_stores_and_room(tmp_path, monkeypatch):
    a, b = make(tmp_path / "a.zarr", range(70)), make(tmp_path / "b.zarr", range(90))
    with pytest.raises(EmbedctlError, match="are one store"):
        merge(a, tmp_path / "." / "a.zarr")
    with EmbeddingStore.open(a).part(Part(0, 2)), pytest.raises(StoreLocked, match="shard 0/2"):
        merge(a, b)
    monkeypatch.setattr("stores.merge.bytes_free", lambda path: 10)
    with pytest.raises(CannotWrite, match="needs 240 B and 10 B are free"):
        merge(a, b)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_merge_says_what_it_brought(tmp_path):
    a, b = make(tmp_path / "a.zarr", range(70)), make(tmp_path / "b.zarr", range(90))
    told = json.loads(run("merge", a, b, "--dry-run", "--json").stdout)
    assert (told["images"], told["embeddings"][0]["rows"], told["dry_run"]) == (20, 20, True)
    result = run("merge", a, b)
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == f"{a}: brought 240 B, 20 new images"


def test_remove_drops_what_is_named_and_leaves_a_clean_workspace(tmp_path):
    store = make(tmp_path / "e.zarr", range(70), ("hog", "pixels"))
    preprocess(tmp_path, (1, 2))
    train(tmp_path)
    assert run("remove", store, "hog").stdout == f"{store}: removed hog#0a\n"
    assert EmbeddingStore.open(store).names == ["pixels"] and EmbeddingStore.open(store).is_consolidated
    assert run("remove", tmp_path / "p.zarr", "things-eeg2/sub-01").exit_code == 0
    assert json.loads(run("remove", tmp_path / "runs", "run-0", "--json").stdout)["removed"] == ["run-0"]
    assert [path.name for path in (tmp_path / "runs").glob("run-*")] == ["run-1"]
    assert json.loads(run("results", "--runs", tmp_path / "runs", "--json").stdout)["results"][0]["run_id"] == "run-1"
    assert damages(tmp_path) == []


@pytest.mark.parametrize("place", ["e.zarr", "p.zarr", "runs"])
def test_of_names_of_which_one_is_not_there_nothing_is_removed(tmp_path, place):
    make(tmp_path / "e.zarr", range(5))
    preprocess(tmp_path)
    train(tmp_path)
    before = {file: file.read_bytes() for file in (tmp_path / place).rglob("*") if file.is_file()}
    known = {"e.zarr": "hog", "p.zarr": "things-eeg2", "runs": "run-1"}[place]
    result = run("remove", tmp_path / place, known, "nowhere")
    assert result.exit_code == 2 and "'nowhere'" in result.stderr and "hint:" in result.stderr
    assert {file: file.read_bytes() for file in (tmp_path / place).rglob("*") if file.is_file()} == before
