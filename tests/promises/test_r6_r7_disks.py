"""R6 and R7: a disk that is full, or read-only, costs two lines and nothing that was committed."""

import re
import shutil
import subprocess
import time
from contextlib import contextmanager

import pytest

import pipelines.extract.outlook
import pipelines.preprocess.preprocess
import pipelines.train.sweep
from tests.promises.harness import (
    committed,
    content,
    damages,
    differing,
    ended,
    extract,
    preprocess,
    run,
    stores_of,
    train,
)  # fmt: skip

pytestmark = pytest.mark.slow

ROOM = [pipelines.extract.outlook, pipelines.preprocess.preprocess, pipelines.train.sweep]


@contextmanager
def mounted(folder, *options):
    """Mount a small disk at ``folder``, where that is permitted."""
    folder.mkdir(exist_ok=True)
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)], capture_output=True)
    if made.returncode:
        pytest.skip(f"mounting is not permitted here: {made.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def commands(world):
    """Return the stages, and the bytes that each finds too few."""
    given = world.inputs
    return {
        "extract": (extract(given, "many"), 100),
        "preprocess": (preprocess(given, "1"), 150),
        "train": (train(given, world.whole), 100),
    }


@pytest.mark.parametrize("stage", ["extract", "preprocess", "train"])
def test_too_little_room_is_known_before_any_work(commands, tmp_path, stage):
    words, kilobytes = commands[stage]
    with mounted(tmp_path / "small", f"size={kilobytes}k") as here:
        code, said = ended(here, words)
        assert code == 7, said
        (error,) = [line for line in said.splitlines() if line.startswith("error:")]
        said = re.findall(r"([\d.]+) (k|M)?B(?: and| are free)", error)
        needed, free = (float(number) * {"": 1, "k": 1e3, "M": 1e6}[unit] for number, unit in said)
        assert needed > free > 0
        assert committed(here) == {}, "numbers were computed"
        assert not list(here.glob("*.zarr")), "a store was begun"


@pytest.mark.parametrize("stage", ["extract", "preprocess", "train"])
def test_a_disk_that_fills_up_on_the_way_loses_nothing(commands, tmp_path, scratch, monkeypatch, stage):
    """Another program takes the room that was there: a disk of a few sizes, each too small at another moment."""
    words, _ = commands[stage]
    run(scratch, words)
    expected = content(scratch)
    for module in ROOM:
        monkeypatch.setattr(module, "bytes_free", lambda path: 10**12)
    codes = []
    for kilobytes in (32, 56, 88, 160, 320):
        with mounted(tmp_path / "small", f"size={kilobytes}k") as here:
            code, said = ended(here, words)
            codes.append(code)
            assert code == 0 or (code == 7 and "the disk is full" in said and "B free)" in said), said
            assert damages(here) == []
            before = committed(here)
            subprocess.run(["mount", "-o", "remount,size=20m", str(here)], check=True)
            run(here, words)
            assert before.items() <= committed(here).items()
            assert not differing(content(here), expected)
    assert codes.count(7) >= 3


@pytest.fixture
def read_only(world, tmp_path):
    """Return the workspace on a disk that nobody can write to."""
    with mounted(tmp_path / "archive", "size=40m") as here:
        shutil.copytree(world.whole, here / "whole")
        subprocess.run(["mount", "-o", "remount,ro", str(here)], check=True)
        yield here / "whole"


def test_what_reads_works_on_a_read_only_disk(world, read_only, scratch):
    embeddings, given = str(read_only / "embeddings.zarr"), world.inputs
    for words in (
        ["show", embeddings],
        ["show", str(read_only / "epochs.zarr")],
        ["verify", str(read_only)],
        ["results", "--runs", str(read_only / "runs")],
        ["compare", "--runs", str(read_only / "runs")],
        ["report", "--runs", str(read_only / "runs"), "--embeddings", embeddings, "--images", given.few],
        train(given, read_only),
        [*extract(given, "few"), "--store", embeddings],  # nothing is to do
        [*preprocess(given, "1,2"), "--store", str(read_only / "epochs.zarr")],
    ):
        run(scratch, words)


def test_what_writes_ends_with_7_at_once(world, read_only, scratch, monkeypatch):
    monkeypatch.setattr("pipelines.extract.forward.build_networks", lambda *_: pytest.fail("a network was built"))
    monkeypatch.setattr("pipelines.preprocess.recorded.examine", lambda *_: pytest.fail("recordings were examined"))
    monkeypatch.setattr("pipelines.train.runner.train_together", lambda *_: pytest.fail("a run was trained"))
    monkeypatch.setattr("embedctl.report.build.gather", lambda *_: pytest.fail("a report was built"))
    monkeypatch.setattr("pipelines.export.predict.predict", lambda *_, **__: pytest.fail("a run was applied"))
    monkeypatch.setattr("pipelines.screen.screen._of_subject", lambda *_: pytest.fail("embeddings were screened"))
    given, store = world.inputs, str(read_only / "embeddings.zarr")
    recipe, stores = str(given.folder / "recipe.toml"), stores_of(read_only)
    theirs = ["--npy", str(given.folder / "theirs.npy"), "--ids", str(given.folder / "ids.txt")]
    for words in (
        [*extract(given, "many"), "--store", store],
        [*extract(given, "many"), "--store", str(read_only / "new.zarr")],
        [*extract(given, "many"), "--store", store, "--shard", "0/2"],
        [*preprocess(given, "1"), "--store", str(read_only / "new.zarr")],
        [*train(given, read_only), "--runs", str(read_only / "new")],
        ["import", "--name", "theirs", *theirs,
         "--images", given.few, "--store", store],
        ["merge", store, str(world.folder / "other.zarr")],
        ["remove", store, "pixels"],
        ["report", "--runs", str(read_only / "runs"), "--embeddings", store, "--out", str(read_only / "report.html")],
        ["predict", world.run, "--subject", "2", "--to", str(read_only / "new"),
         "--runs", str(read_only / "runs"), *stores],
        ["export", world.run, "--to", str(read_only / "new"), "--runs", str(read_only / "runs"), "--embeddings", store],
        ["screen", "--brain", "eeg", "--test", "--recipe", recipe, "--runs", str(read_only / "runs"), *stores],
        ["interpret", "--runs", str(read_only / "runs"), *stores],
    ):  # fmt: skip
        began = time.monotonic()
        code, said = ended(scratch, words)
        assert code == 7 and "read-only" in said, (words, code, said)
        assert time.monotonic() - began < 2, words
