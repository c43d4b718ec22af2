"""One module writes every file, in the order a power cut demands."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stores import commits
from stores.commits import digest, discard, draft_name, place, put_bytes, put_json, put_table, sweep
from stores.embeddings import EmbeddingStore
from stores.errors import CannotWrite, DamagedStore
from stores.tables import read_table
from tests.crashes import WRITES


@pytest.fixture
def calls(monkeypatch):
    """Every writing call of the operating system, in order."""
    made = []
    for name in WRITES:
        true = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _true=true, **o: made.append(_name) or _true(*a, **o))
    return made


def test_a_file_is_flushed_before_it_gets_its_name_and_its_folder_after(tmp_path, calls):
    put_bytes(tmp_path / "x", b"new")
    assert calls == ["fsync", "replace", "fsync"]


def test_a_new_folder_is_flushed_into_the_one_above_before_anything_is_put_into_it(tmp_path, calls):
    put_bytes(tmp_path / "a" / "b" / "x", b"new")
    assert calls == ["mkdir", "fsync", "mkdir", "fsync", "fsync", "replace", "fsync"]


def test_drafts_lie_where_they_are_told_to(tmp_path, monkeypatch):
    seen = []
    true = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: seen.append(a.parent.name) or true(a, b))
    put_bytes(tmp_path / "group" / "zarr.json", b"{}", drafts=tmp_path / "array" / "drafts")
    assert seen == ["drafts"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT, errno.EIO])
def test_a_disk_that_takes_nothing_is_one_of_our_errors_and_the_old_file_stays(tmp_path, monkeypatch, code):
    put_bytes(tmp_path / "x", b"old")

    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(CannotWrite) as problem:
        put_bytes(tmp_path / "x", b"new" * 1_000_000)
    assert problem.value.exit_code == 7 and problem.value.hint
    assert ("3.0 MB" in str(problem.value) and "free" in str(problem.value)) == (code in (errno.ENOSPC, errno.EDQUOT))
    assert [path.name for path in tmp_path.iterdir()] == ["x"] and (tmp_path / "x").read_bytes() == b"old"


def test_another_problem_of_the_disk_is_not_hidden(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENXIO, "no such device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no such device"):
        put_bytes(tmp_path / "x", b"new")


def test_a_value_is_always_the_same_bytes(tmp_path):
    put_json(tmp_path / "a", {"b": np.float64(1.5), "a": np.arange(2), "path": tmp_path})
    assert json.loads((tmp_path / "a").read_text()) == {"b": 1.5, "a": [0, 1], "path": str(tmp_path)}
    with pytest.raises(ValueError):
        put_json(tmp_path / "a", {"not a number": float("nan")})


def test_a_table_comes_back_as_it_went(tmp_path):
    table = pa.table({"id": ["a", "b"], "n": [1, None]})
    put_table(tmp_path / "t.parquet", table)
    assert read_table(tmp_path / "t.parquet").equals(table)


def test_a_table_that_repeats_a_long_text_is_refused_before_it_is_unpacked(tmp_path):
    """Half a kilobyte, and 1.3 GB once every row has its text."""
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(65_536, np.int32)), pa.array(["x" * 20_000]))
    options = {"store_schema": False, "compression": "zstd", "dictionary_pagesize_limit": 1 << 30}
    pq.write_table(pa.table({"id": texts}), tmp_path / "t", **options)
    before = pa.default_memory_pool().max_memory()
    with pytest.raises(DamagedStore):
        read_table(tmp_path / "t")
    assert pa.default_memory_pool().max_memory() < before + 10_000_000


def test_a_table_with_a_list_in_a_row_is_refused(tmp_path):
    put_table(tmp_path / "t.parquet", pa.table({"id": [["a", "b"]]}))
    with pytest.raises(DamagedStore, match="neither numbers nor texts"):
        read_table(tmp_path / "t.parquet")


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    data = os.urandom(3_000_000)
    (tmp_path / "x").write_bytes(data)
    assert digest(tmp_path / "x") == digest(data) and len(digest(data)) == 32


def test_sweeping_takes_what_the_dead_left_and_nothing_of_the_living(tmp_path):
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    ours = tmp_path / draft_name("ours")
    theirs = tmp_path / draft_name("theirs").replace(f"!{os.getpid()}-", f"!{dead}-")
    elsewhere = tmp_path / draft_name("elsewhere").replace(f"@{commits.PLACE}!", "@other-host!")
    ancient = tmp_path / draft_name("ancient").replace(f"@{commits.PLACE}!", "@other-host!")
    for path in (ours, theirs, elsewhere, ancient):
        path.mkdir()
        (path / "x").touch()
    os.utime(ancient, (0, 0))
    (tmp_path / "photograph.jpg").touch()
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {ours.name, elsewhere.name, "photograph.jpg"}


FOREIGN = (".x.draft", ".notes@home.draft", ".a@host!12.draft", ".a@host!x-1.draft", ".a@h!1-1.draft~", "a@h!1-1.draft")


def test_making_a_store_leaves_what_others_keep_beside_it(tmp_path):
    for name in (*FOREIGN, ".poem.txt@host!1-1.draft"):
        (tmp_path / name).write_text("mine")
        (tmp_path / f".folder-{name}").mkdir()
        (tmp_path / f".folder-{name}" / "x").write_text("mine")
    ancient = tmp_path / draft_name("embeddings.zarr").replace(f"@{commits.PLACE}!", "@other-host!")
    ancient.mkdir()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    before = {path.name for path in tmp_path.iterdir()}
    EmbeddingStore.open(tmp_path / "embeddings.zarr", create=True)
    assert {path.name for path in tmp_path.iterdir()} == before - {ancient.name} | {"embeddings.zarr"}


def test_sweeping_a_folder_of_ours_leaves_what_is_not_named_like_a_draft_of_ours(tmp_path):
    for name in FOREIGN:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(FOREIGN)


@pytest.mark.parametrize("begun_as", ["nothing", "an empty folder"])
@pytest.mark.parametrize("moment", ["rename", "rmdir"])
def test_of_two_processes_that_make_one_store_the_later_takes_the_one_that_is_there(
    tmp_path, monkeypatch, begun_as, moment
):
    path, other = tmp_path / "embeddings.zarr", tmp_path / "other.zarr"
    EmbeddingStore.open(other, create=True)
    if begun_as == "an empty folder":
        path.mkdir()
    true = getattr(os, moment)

    def after_the_other(*arguments, **options):
        monkeypatch.setattr(os, moment, true)
        os.replace(other, path)
        return true(*arguments, **options)

    monkeypatch.setattr(os, moment, after_the_other)
    assert EmbeddingStore.open(path, create=True).names == []
    assert [left.name for left in tmp_path.iterdir() if left != other] == ["embeddings.zarr"]


def test_a_finished_folder_takes_its_place_only_where_nothing_is(tmp_path):
    for name in ("new", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    (tmp_path / "empty").mkdir()
    place(tmp_path / "new", tmp_path / "empty")
    with pytest.raises(FileExistsError):
        place(tmp_path / "other", tmp_path / "empty")
    assert (tmp_path / "empty" / "x").read_text() == "new"
    discard(tmp_path / "empty", tmp_path / "drafts")
    assert not (tmp_path / "empty").exists() and not any((tmp_path / "drafts").iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_file_system_that_takes_no_folders_is_one_of_our_errors():
    with pytest.raises(CannotWrite, match="no folder can be made in '/proc'"):
        put_bytes(Path("/proc/store/x"), b"new")
