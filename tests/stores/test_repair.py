"""Repair drops what is damaged and nothing else, and the command that wrote it brings back the same bytes."""

import json
import os
import shutil
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

import stores.repair
from embedctl.cli import app
from stores.embeddings import EmbeddingStore
from stores.layout import array_node
from stores.repair import repair
from stores.roots import node_bytes
from stores.verify import find_places
from tests.crashes import extract, files, preprocess, train
from tests.damage import DAMAGE, damages, flip
from tests.promises.harness import put_image
from tests.stores.test_verify import KINDS, written  # noqa: F401


@pytest.fixture
def workspace(written, tmp_path):  # noqa: F811
    return shutil.copytree(written, tmp_path / "workspace")


def embedctl(*words):
    return CliRunner().invoke(app, list(words))


def again(path):
    """Do what the commands that wrote the workspace would do now."""
    extract(path, 80, "b")
    preprocess(path, (1, 2))
    train(path)


def mend(path):
    return [repair(place, kind) for place, kind in find_places(path)]


def times(path):
    return {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}


def check_repair(workspace, kind, copy, names):
    expected = files(workspace / KINDS[kind])
    for name in names:
        for way in ("flip", "delete"):
            shutil.copytree(workspace / KINDS[kind], copy / KINDS[kind])
            DAMAGE[way](copy / KINDS[kind] / name)
            mend(copy)
            assert damages(copy) == [], name
            extract(copy, 80, "b") if kind == "embeddings" else preprocess(copy, (1, 2))
            found = files(copy / KINDS[kind])
            different = {file for file in {*found, *expected} if found.get(file) != expected.get(file)}
            assert not different, (name, different)
            shutil.rmtree(copy)


SOME = {
    "embeddings": ["zarr.json", "image/c/0", "image/.embedctl/metadata.json", "pixels-0a/zarr.json",
                   "pixels-0a/values/.embedctl/metadata.json", "pixels-0a/values/.embedctl/receipts/000000.json"],
    "epochs": ["zarr.json", "subject/c/0", "things-eeg2/zarr.json", "things-eeg2/sub-02/zarr.json",
               "things-eeg2/sub-02/train/mean/.embedctl/receipts/000001.json", "things-eeg2/sub-02/whitener/c/0/0/0"],
}  # fmt: skip


@pytest.mark.parametrize("kind", SOME)
def test_after_repair_and_the_writing_command_every_byte_is_what_it_was(workspace, kind, tmp_path):
    check_repair(workspace, kind, tmp_path / "copy", SOME[kind])


def test_without_the_images_a_lost_table_of_them_is_told_with_what_was_in_it_and_what_to_type(workspace):
    # What images the rows are of is said nowhere else, and what cannot be known is not made up.
    table = workspace / "e.zarr/image/.embedctl/images-0.parquet"
    table.unlink()
    for file in (
        "e.zarr/pixels-0a/values/c/0/0",
        "p.zarr/things-eeg2/sub-01/train/mean/c/0/0/0",
        "runs/run-0/scores.npy",
    ):
        flip(workspace / file)  # all else is repaired
    result = embedctl("repair", str(workspace))
    assert result.exit_code == 4 and result.stdout.count("dropped") == 3
    assert "size, time and hash of 80 images, '000.jpg' to '079.jpg', but no row" in result.stderr
    assert "embedctl repair" in result.stderr and "--images DIR" in result.stderr
    assert [damage.file for damage in damages(workspace)] == [table]


IN_THE_WAY = {
    "e.zarr": ["pixels-0a/values/c/0/0", "pixels-0a/values/zarr.json", "zarr.json", "image/c/0",
               "image/.embedctl/metadata.json", "pixels-0a/zarr.json", "pixels-0a/values/.embedctl/metadata.json",
               "pixels-0a/values/.embedctl/receipts/000000.json"],
    "p.zarr": ["things-eeg2/sub-01/test/channel/c/0", "things-eeg2/sub-01/zarr.json", "things-eeg2/zarr.json",
               "things-eeg2/sub-01/train/mean/c/0/0/0", "zarr.json", "subject/c/0", "subject/.embedctl/metadata.json",
               "things-eeg2/sub-01/train/mean/.embedctl/receipts/000000.json"],
    "runs": ["run-0/scores.npy", "run-0/receipt.json", "run-0/summary.json", "results.parquet"],
}  # fmt: skip
# What is damaged beside it, and of that what waits until the folder is gone: what needs the root, or all summaries.
BESIDE = {
    "e.zarr": ["pixels-0a/values/c/1/0", "clip-vitb32~blocks.7.mean-0a/values/c/0/0", "pixels-0a/image/c/0"],
    "p.zarr": ["things-eeg2/sub-02/whitener/zarr.json", "things-eeg2/sub-02/test/mean/c/0/0/0"],
    "runs": ["run-1/scores.npy"],
}
WAITS = {
    **{f"p.zarr/{name}": BESIDE["p.zarr"][1:] for name in ("things-eeg2/zarr.json", "subject/c/0",
                                                           "subject/.embedctl/metadata.json")},
    "p.zarr/zarr.json": BESIDE["p.zarr"], "runs/run-0/summary.json": ["run-1/receipt.json"],
}  # fmt: skip
DAILY = ("e.zarr/pixels-0a/values/c/0/0", "e.zarr/zarr.json", "p.zarr/things-eeg2/zarr.json", "runs/run-0/scores.npy")


@pytest.mark.parametrize(
    "name",
    [
        name if name in DAILY else pytest.param(name, marks=pytest.mark.slow)
        for name in (f"{place}/{file}" for place, files in IN_THE_WAY.items() for file in files)
    ],
)
def test_a_folder_with_something_in_it_stays_and_keeps_nothing_else_from_repair(workspace, name):
    whole, file, place = files(workspace), workspace / name, workspace / name.partition("/")[0]
    file.unlink()
    (file / "mine").mkdir(parents=True)
    beside = [place / other for other in BESIDE[place.name]]
    for other in beside:
        flip(other)
    told = embedctl("repair", str(workspace))
    assert told.exit_code == 4 and f"'{file}' is a folder with something in it" in told.stderr, told.output
    assert "hint:  move it away, and repair again" in told.stderr and (file / "mine").is_dir()
    left = {damage.file for damage in damages(workspace)}
    assert left == {file, *(place / other for other in WAITS.get(name, ()))}
    shutil.rmtree(file)
    told = embedctl("repair", str(workspace))
    assert told.exit_code == 0 and not damages(workspace), told.output
    again(workspace)
    now = files(workspace)
    assert {name for name in whole if now.get(name) != whole[name] and "occlusion" not in name} == set()


def chunks_of(n):
    """Have an array say that its chunks hold other rows than they do."""

    def lie(node):
        node["chunk_grid"]["configuration"]["chunk_shape"][0] = n

    return lie


def rows_of(n):
    """Have an array say that it has other rows than it has."""

    def lie(node):
        node["shape"][0] = n

    return lie


def blocks_of(n):
    """Have a store say that its blocks have other rows than they have."""

    def lie(node):
        node["attributes"]["embedctl"]["block_rows"] = n

    return lie


VALUES, MEAN = "e.zarr/pixels-0a/values/zarr.json", "p.zarr/things-eeg2/sub-01/train/mean/zarr.json"


@pytest.mark.parametrize(
    ("name", "lie"),
    [
        (VALUES, chunks_of(16)),
        (VALUES, chunks_of(256)),
        ("e.zarr/zarr.json", blocks_of(16)),
        ("e.zarr/image/zarr.json", rows_of(3)),
        (MEAN, rows_of(1000)),
    ],
)
def test_metadata_that_lies_takes_no_chunk_along(workspace, name, lie):
    """What blocks hold is told by it: before it is whole again, none may be judged by it."""
    whole, before = files(workspace), times(workspace)
    node = json.loads((workspace / name).read_bytes())
    lie(node)
    (workspace / name).write_text(json.dumps(node))
    (done,) = [done for done in mend(workspace) if done.found]
    assert (done.dropped, done.lost) == ([], []) and workspace / name in done.restored
    assert files(workspace) == whole and not damages(workspace)
    touched = [file for file, time in times(workspace).items() if before[file] != time]
    assert not [file for file in touched if "c" in file.parts or file.parent.name == "receipts"]


def test_a_receipt_in_another_place_under_metadata_that_lies_is_found_once_these_are_whole(workspace):
    node = json.loads((workspace / VALUES).read_bytes())
    chunks_of(256)(node)
    (workspace / VALUES).write_text(json.dumps(node))
    receipts = workspace / "e.zarr/pixels-0a/values/.embedctl/receipts"
    shutil.copyfile(receipts / "000000.json", receipts / "000001.json")
    (done,) = [done for done in mend(workspace) if done.found]
    assert done.dropped == ["pixels#0a"] and not damages(workspace)


def test_an_empty_folder_in_the_place_of_a_file_goes(workspace):
    file = workspace / "p.zarr/things-eeg2/sub-01/test/channel/c/0"
    file.unlink()
    file.mkdir()
    assert repair(workspace / "p.zarr", "epochs").restored == [file]
    assert not damages(workspace)


@pytest.mark.parametrize(("way", "touched"), [("flip", False), ("delete", False), ("delete", True)])
def test_from_the_images_it_is_written_again_byte_for_byte_or_without_hashes(tmp_path, monkeypatch, way, touched):
    monkeypatch.chdir(tmp_path)
    for n in range(5):
        put_image(tmp_path / "images" / f"{n}.png", n)
    (tmp_path / "images" / "bad.png").write_bytes(b"no image")
    words = ["extract", "--model", "pixels"]
    assert embedctl(*words).exit_code == 3
    whole, table = files(tmp_path / "embeddings.zarr"), "image/.embedctl/images-0.parquet"
    if touched:
        os.utime(tmp_path / "images" / "3.png", (1, 1))
    DAMAGE[way](tmp_path / "embeddings.zarr" / table)
    (tmp_path / "few").mkdir()
    put_image(tmp_path / "few" / "0.png", 0)
    lacking = embedctl("repair", ".", "--images", "few")
    assert lacking.exit_code == 2 and "lacks 5 of 6 images, such as '1.png'" in lacking.stderr and damages(tmp_path)
    told = embedctl("repair", ".", "--images", "images")
    assert told.exit_code == 0 and not damages(tmp_path), told.stderr
    assert ("without hashes" if touched else "restored") in told.stdout
    now = files(tmp_path / "embeddings.zarr")
    different = {name for name in {*now, *whole} if now.get(name) != whole.get(name)}
    assert different == ({table, "image/.embedctl/metadata.json"} if touched else set())
    records = EmbeddingStore.open(tmp_path / "embeddings.zarr").images()
    assert all(record.sha256 == "" for record in records.values()) == touched
    values = EmbeddingStore.open(tmp_path / "embeddings.zarr")["pixels"].values
    assert embedctl(*words).exit_code == 3  # and goes on as ever
    assert (EmbeddingStore.open(tmp_path / "embeddings.zarr")["pixels"].values == values).all()


def test_a_damaged_chunk_costs_its_rows_and_touches_nothing_else(workspace):
    chunk = workspace / "e.zarr/pixels-0a/values/c/1/0"
    before = times(workspace)
    flip(chunk)
    done = mend(workspace)[0]
    assert (done.dropped, done.lost, done.restored) == (["pixels#0a"], [], [])
    again(workspace)
    after = times(workspace)
    receipt = workspace / "e.zarr/pixels-0a/values/.embedctl/receipts/000000.json"
    assert {file for file in before if after[file] != before[file]} == {chunk, receipt}


def test_a_damaged_block_of_epochs_costs_that_block(workspace):
    block = workspace / "p.zarr/things-eeg2/sub-02/train/epochs/c/1/0/0/0"
    before = times(workspace / "p.zarr/things-eeg2")
    flip(block)
    assert mend(workspace)[1].dropped == ["things-eeg2/sub-02"]
    again(workspace)
    after = times(workspace / "p.zarr/things-eeg2")
    touched = {file.relative_to(workspace / "p.zarr/things-eeg2") for file in before if after[file] != before[file]}
    chunks = {"epochs/c/1/0/0/0", "mean/c/1/0/0", "valid/c/1/0", "session/c/1/0"}
    assert {file.as_posix() for file in touched} == {
        f"sub-02/train/{name}" for name in {*chunks, "mean/.embedctl/receipts/000001.json"}
    }


@pytest.mark.parametrize("name", ["scores.npy", "receipt.json"])
def test_a_damaged_run_is_trained_anew_and_no_other(workspace, name):
    runs = workspace / "runs"
    before, whole = times(runs / "run-0"), files(runs / "run-1")
    flip(runs / "run-1" / name)
    assert mend(workspace)[2].dropped == ["run-1"]
    assert damages(workspace) == []
    train(workspace)
    assert damages(workspace) == [] and times(runs / "run-0") == before
    assert {file: data for file, data in whole.items() if "/" not in file} == files(runs / "run-1")


def test_a_table_of_results_that_is_damaged_is_made_again(workspace):
    whole = files(workspace / "runs")
    flip(workspace / "runs/results.parquet")
    mend(workspace)
    assert files(workspace / "runs") == whole


OTHER = {
    "folder": lambda file: file.mkdir(),
    "link to a folder": lambda file: file.symlink_to(file.parent.parent),
    "link in a circle": lambda file: file.symlink_to(file.name),
    "pipe": os.mkfifo,
}
PLACES = ["e.zarr/zarr.json", "e.zarr/pixels-0a/values/.embedctl/receipts/000000.json", "e.zarr/pixels-0a/image",
          "p.zarr/things-eeg2/sub-01/test/channel/c/0", "p.zarr/things-eeg2/sub-01/train/image/c/0",
          "p.zarr/things-eeg2/sub-02", "runs/results.parquet", "runs/run-1/config.json", "runs/run-0"]  # fmt: skip


@pytest.mark.parametrize("way", OTHER)
def test_what_stands_in_the_place_of_a_file_and_is_none_goes_with_the_other_damage(workspace, way):
    """Nine at once, some of them in the place of a folder, and in each store a flipped bit."""
    for name in PLACES:
        wrong = workspace / name
        shutil.rmtree(wrong) if wrong.is_dir() else wrong.unlink()
        is_folder = "." not in wrong.name and not wrong.name.isdecimal()
        wrong.write_text("a file") if is_folder else OTHER[way](wrong)
    for name in ("e.zarr/clip-vitb32~blocks.7.mean-0a/values/c/0/0", "p.zarr/things-eeg2/sub-01/test/mean/c/0/0/0"):
        flip(workspace / name)
    told = embedctl("repair", str(workspace))
    assert told.exit_code == 0 and not damages(workspace), told.output
    again(workspace)
    assert not damages(workspace)


def test_nothing_is_touched_where_nothing_is_damaged(workspace):
    before = times(workspace)
    assert [done.found for done in mend(workspace)] == [[], [], []]
    assert times(workspace) == before


CHUNKS = {"e.zarr": "pixels-*/values/c/0/0", "p.zarr": "*/sub-01/train/mean/c/0/0/0", "runs": "run-0/scores.npy"}


def test_what_others_keep_in_stores_and_runs_is_no_damage_and_stays(workspace):
    theirs = {
        "p.zarr/my-notes/c/0": b"my numbers",
        "p.zarr/my-notes/zarr.json": node_bytes(array_node((3,), "float32", (3,), ("x",))),
        "e.zarr/my-umap/c/0": b"my numbers",
        "e.zarr/my-umap/zarr.json": node_bytes(array_node((3,), "float32", (3,), ("x",))),
        "runs/run-0/my_figures/fig1.png": b"a week of work",
    }
    for name, data in theirs.items():
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_bytes(data)
    assert damages(workspace) == []
    for place, _ in find_places(workspace):
        flip(next(place.glob(CHUNKS[place.name])))
    mend(workspace)
    assert damages(workspace) == []
    assert {name: (workspace / name).read_bytes() for name in theirs} == theirs


def test_a_run_whose_writer_ends_while_repair_looks_is_left_alone(workspace, monkeypatch):
    receipt = workspace / "runs/run-0/receipt.json"
    said = receipt.read_bytes()
    receipt.unlink()
    real = stores.repair.lock

    @contextmanager
    def ends(*words, **more):
        with real(*words, **more):
            receipt.write_bytes(said)
            yield

    monkeypatch.setattr(stores.repair, "lock", ends)
    assert repair(workspace / "runs", "runs").dropped == [] and receipt.read_bytes() == said
