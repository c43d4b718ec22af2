"""Damage to any file is found and located; what is as it was written, or was cut short, is never called damaged."""

import shutil
from collections import Counter

import numpy as np
import pytest

from stores import checks, verify
from stores.beside import write_beside
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import EmbedctlError
from stores.receipts import vouch, write_receipt
from stores.repair import repair
from stores.results import assemble
from stores.screens import record_tested
from stores.verify import find_places, plan
from tests.crashes import extract, preprocess, remove, train
from tests.damage import DAMAGE, damages, flip

KINDS = {"embeddings": "e.zarr", "epochs": "p.zarr", "runs": "runs"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One small store of each kind: two blocks of images of which ten came later, two subjects, two runs."""
    path = tmp_path_factory.mktemp("workspace")
    extract(path, 70)
    extract(path, 80, "b")
    preprocess(path, (1, 2))
    train(path)
    write_beside(path / "runs", "run-1", "occlusion", summary={"top1": 0.5}, arrays={"times": np.zeros(3)})
    return path


@pytest.fixture
def workspace(written, tmp_path):
    return shutil.copytree(written, tmp_path / "workspace")


def files(store):
    return [file for file in sorted(store.rglob("*")) if file.is_file()]


def test_receipts_that_changed_places_are_found(workspace):
    """Each is whole and speaks of files that are as it says: they lie where another one belongs."""
    record_tested(workspace / "runs", [("things-eeg2", "pixels", "0a", "1b")])
    assert not damages(workspace)
    one, other = (workspace / "runs" / ".embedctl" / f"{name}.json" for name in ("results", "screens"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second), other.write_bytes(first)
    assert {damage.file for damage in damages(workspace)} == {one, other}


def belongs_to(file, store):
    """Say, from the path alone, what a file is part of."""
    words = file.relative_to(store).parts
    if store.name == "e.zarr":
        return {"pixels-0a": "pixels#0a", "clip-vitb32~blocks.7.mean-0a": "clip-vitb32:blocks.7.mean#0a"}.get(
            words[0], ""
        )
    if store.name == "p.zarr":
        is_split = words[2] in ("train", "test") if len(words) > 2 else False
        return "" if len(words) < 3 or words[0] == "subject" else "/".join(words[: 2 + is_split])
    if words[-1] == "screens.json":
        return "screens.json"
    if len(words) > 2:
        return "/".join(words[:2])
    return words[0] if words[0].startswith("run-") else ""


# Epochs have the most files by far: of those one damage is enough here, and `tests/promises` has the others.
CASES = [(way, kind) for way in DAMAGE for kind in KINDS if kind != "epochs" or way == "flip"]


@pytest.mark.parametrize(("way", "kind"), CASES)
def test_damage_to_any_file_is_found_and_located(workspace, kind, way):
    store = workspace / KINDS[kind]
    for file in files(store):
        whole = file.read_bytes()
        DAMAGE[way](file)
        found = damages(store)
        assert found, f"{file} was not missed"
        part = belongs_to(file, store)
        # Of a block's lost receipt it is the block's chunks that are left without one.
        near = [d for d in found if d.file == file or (way == "delete" and d.problem == "has no receipt")]
        assert near and {damage.part for damage in near} == {part}, (file, found)
        file.write_bytes(whole)
    assert damages(store) == []


@pytest.mark.parametrize("part", ["e.zarr/pixels-0a", "e.zarr/image", "p.zarr/things-eeg2/sub-01"])
def test_a_part_of_a_store_is_not_looked_at_alone(written, part):
    with pytest.raises(EmbedctlError, match="is a part of"):
        find_places(written / part)


def test_the_rows_and_images_of_a_damaged_chunk_are_named(workspace):
    flip(workspace / "e.zarr/pixels-0a/values/c/1/0")
    (found,) = damages(workspace)
    assert (found.kind, found.part, found.problem) == ("embeddings", "pixels#0a", "is not the file that was written")
    rows = [row for start, stop in found.rows for row in range(start, stop)]
    assert rows == list(range(64, 80)) and found.images == tuple(f"{row:03d}.jpg" for row in rows)


def test_the_images_of_a_damaged_block_of_epochs_are_named(workspace):
    flip(workspace / "p.zarr/things-eeg2/sub-02/train/valid/c/1/0")
    (found,) = damages(workspace)
    assert (found.part, found.images) == ("things-eeg2/sub-02/train", ("train/3.jpg", "train/4.jpg"))


@pytest.mark.parametrize(
    ("receipt", "ends"),
    [
        ("e.zarr/pixels-0a/values/.embedctl/receipts/000000.json", 80),
        ("e.zarr/pixels-0a/values/.embedctl/metadata.json", None),
        ("p.zarr/things-eeg2/sub-02/train/mean/.embedctl/receipts/000001.json", 5),
    ],
)
def test_a_receipt_that_cannot_be_read_is_one_line_and_its_rows_end_with_the_last_image(workspace, receipt, ends):
    flip(workspace / receipt)
    (damage,) = damages(workspace)
    assert damage.file == workspace / receipt and [stop for _, stop in damage.rows] == [ends] * bool(ends)


@pytest.mark.parametrize("kind", KINDS)
def test_two_files_that_changed_places_are_found(workspace, kind):
    store = workspace / KINDS[kind]
    known = files(store)
    for first, second in zip(known, known[1:], strict=False):
        if first.read_bytes() == second.read_bytes():
            continue
        one, two = first.read_bytes(), second.read_bytes()
        first.write_bytes(two)
        second.write_bytes(one)
        assert {first, second} & {damage.file for damage in damages(store)}, (first, second)
        first.write_bytes(one)
        second.write_bytes(two)


def test_receipts_that_changed_places_are_found_although_together_they_say_the_same(workspace):
    receipts = workspace / "p.zarr/things-eeg2/sub-01/train/mean/.embedctl/receipts"
    one, two = receipts / "000000.json", receipts / "000001.json"
    one.rename(receipts / "x"), two.rename(one), (receipts / "x").rename(two)
    assert {one, two} <= {damage.file for damage in damages(workspace)}


@pytest.mark.parametrize("gone", ["e.zarr/pixels-0a", "p.zarr/things-eeg2/sub-01", "p.zarr/things-eeg2", "runs/run-1"])
def test_a_whole_folder_that_is_gone_is_missed(workspace, gone):
    shutil.rmtree(workspace / gone)
    assert workspace / gone in {damage.file for damage in damages(workspace)}


@pytest.mark.parametrize(("way", "kind"), [case for case in CASES if case[0] != "flip"])
def test_a_quick_look_finds_what_is_missing_or_cut_short(workspace, kind, way):
    store = workspace / KINDS[kind]
    for file in files(store):
        whole = file.read_bytes()
        DAMAGE[way](file)
        assert damages(store, quick=True), file
        file.write_bytes(whole)


def test_nothing_is_called_damaged_after_images_were_added_and_parts_removed(workspace):
    assert damages(workspace) == []
    extract(workspace, 140, "b")
    assert damages(workspace) == []
    remove(workspace)
    EpochStore.open(workspace / "p.zarr").remove("things-eeg2", 1)
    shutil.rmtree(workspace / "runs" / "run-0")
    assemble(workspace / "runs")
    assert damages(workspace) == []


def test_what_others_put_into_a_store_is_no_damage(workspace):
    (workspace / "e.zarr" / ".DS_Store").write_bytes(b"x")
    (workspace / "p.zarr" / "README.txt").write_bytes(b"x")
    assert damages(workspace) == []
    assert any("README.txt" in remark for remark in plan(workspace / "p.zarr", "epochs").remarks)


LEFT_BY_OTHERS = [
    "e.zarr/pixels-0a/values/c/.DS_Store",
    "e.zarr/pixels-0a/values/c/0/.nfs00000000deadbeef00000001",
    "e.zarr/pixels-0a/values/.embedctl/receipts/._000000.json",
    "e.zarr/pixels-0a/values/.embedctl/receipts/000000 (1).json",
    "e.zarr/image/.embedctl/Thumbs.db",
    "p.zarr/things-eeg2/sub-01/train/mean/.embedctl/receipts/._000000.json",
    "p.zarr/things-eeg2/sub-01/train/mean/c/.DS_Store",
]


def test_what_file_managers_and_mounts_leave_among_chunks_and_receipts_is_no_damage_and_stays(workspace):
    for name in LEFT_BY_OTHERS:
        (workspace / name).write_bytes(b"\0\5\26\7")
    assert damages(workspace) == []
    assert len(EmbeddingStore.open(workspace / "e.zarr")["pixels"].values)
    assert len(EpochStore.open(workspace / "p.zarr")["things-eeg2", 1].train.mean)
    flip(workspace / "e.zarr/pixels-0a/values/c/1/0")
    assert repair(workspace / "e.zarr", "embeddings").dropped == ["pixels#0a"]
    assert damages(workspace) == [] and all((workspace / name).exists() for name in LEFT_BY_OTHERS)
    extract(workspace, 140, "b")
    preprocess(workspace, (1, 2, 3))


@pytest.mark.parametrize("at", ["stores.verify._listed", "stores.verify.runs_listed"])
def test_a_writer_that_ends_while_one_looks_is_no_damage(workspace, monkeypatch, at):
    true, wrote = getattr(verify, at.rpartition(".")[2]), []

    def meanwhile(*arguments):
        if not wrote:
            wrote.append(True)
            extract(workspace, 140, "b")
            shutil.copytree(workspace / "runs" / "run-0", workspace / "runs" / "run-9")
            change_run(workspace / "runs" / "run-9")
            assemble(workspace / "runs")
        return true(*arguments)

    monkeypatch.setattr(at, meanwhile)
    assert damages(workspace) == [] and wrote


def change_run(folder):
    """Give a copied run its own name."""
    files = {path.name: path.read_bytes() for path in folder.glob("[!r]*.*")}
    files["summary.json"] = files["summary.json"].replace(b"run-0", b"run-9")
    (folder / "summary.json").write_bytes(files["summary.json"])
    write_receipt(folder / "receipt.json", {name: vouch(data) for name, data in files.items()})


def test_one_run_is_verified_alone(workspace):
    flip(workspace / "runs/run-0/scores.npy")
    assert damages(workspace / "runs/run-1") == []
    (found,) = damages(workspace / "runs/run-0")
    assert (found.part, found.file.name) == ("run-0", "scores.npy")


def test_looking_at_much_damage_and_undoing_it_reads_ids_once_and_whole_embeddings_once(tmp_path, monkeypatch):
    """A store of many lost chunks is looked at and repaired in a time that grows with it, and not with its square."""
    extract(tmp_path, 600)
    store, looks = tmp_path / "e.zarr", Counter()
    for chunk in (store / "pixels-0a/values/c").rglob("0"):
        if chunk.is_file():
            chunk.unlink()
    for module, name in ((verify, "read_strings"), (verify, "_embedding_rows"), (checks, "digest")):
        true = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _true=true, _name=name: looks.update([_name]) or _true(*a))
    assert len(damages(tmp_path)) == 10
    assert looks.pop("read_strings") <= 2
    looks.clear()
    done = repair(store, "embeddings")
    assert done.dropped == ["pixels#0a"] and len(done.found) == 10
    assert looks["_embedding_rows"] <= 8, (
        "each embedding is planned without the lock and inside, and never per embedding"
    )
    assert looks["digest"] <= 30, "what is whole is read once"
