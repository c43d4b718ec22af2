"""Embeddings of other programs come in whole, marked, and only when nothing is wrong with them."""

import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import embedctl
from embedctl.cli import app
from pipelines.encoders.affine import read_affine
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from pipelines.imports.imports import import_embeddings
from pipelines.imports.per_image import find_per_image
from pipelines.imports.request import ImportRequest
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, NotHere

IDS = [f"training_images/{c:05d}_thing{c}/thing{c}_{i:02d}b.jpg" for c in range(6) for i in range(3)]
DIM = 7
NUMBERS = np.random.default_rng(0).standard_normal((len(IDS), DIM)).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A workspace with images and nothing else."""
    monkeypatch.chdir(tmp_path)
    for image_id in IDS:
        path = tmp_path / "images" / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    (tmp_path / "ids.txt").write_text("\n".join(IDS) + "\n")
    np.save("mine.npy", NUMBERS)
    return tmp_path


def run(*words):
    return CliRunner().invoke(app, ["import", *map(str, words)])


def bring(array="mine.npy", ids="ids.txt", name="mine", *more):
    return run("--name", name, "--npy", array, *(["--ids", ids] if ids else []), *more)


def stored(name="mine"):
    found = EmbeddingStore.open("embeddings.zarr")[name]
    return dict(zip(found.image_ids, found.values, strict=True))


def refused(result, what, hint=""):
    assert result.exit_code == 2 and what in result.stderr and hint in result.stderr, result.stderr
    assert [line[:7] for line in result.stderr.splitlines()][-2:] == ["error: ", "hint:  "]


# What comes in ----------------------------------------------------------------------------------------------------


def save_npz(path):
    np.savez(path, features=NUMBERS, labels=np.arange(len(NUMBERS)))


def save_object_beside(path):
    np.savez(path, features=NUMBERS, names=np.array(["a", None], dtype=object))


WRITTEN = {
    "mine.npy": lambda path: np.save(path, NUMBERS),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(NUMBERS)),
    "double.npy": lambda path: np.save(path, NUMBERS.astype(">f8")),
    "mine.npz": save_npz,
    "packed.npz": lambda path: np.savez_compressed(path, NUMBERS),
    "objects-beside.npz": save_object_beside,
    "mine.pt": lambda path: torch.save(torch.tensor(NUMBERS), path),
    "dict.pt": lambda path: torch.save({"img_features": torch.tensor(NUMBERS), "labels": torch.arange(3)}, path),
    "parameter.pth": lambda path: torch.save(torch.nn.Parameter(torch.tensor(NUMBERS)), path),
}


@pytest.mark.parametrize("file", WRITTEN)
def test_every_format_gives_the_same_rows_under_the_same_key(folder, file):
    WRITTEN[file](folder / file)
    assert bring(file, "ids.txt", "mine", "--dtype", "float32").exit_code == 0
    rows = stored()
    assert list(rows) == IDS and np.array_equal(np.stack(list(rows.values())), NUMBERS)
    assert "nothing to do" in bring("mine.npy", "ids.txt", "mine", "--dtype", "float32").stdout


def test_bfloat16_comes_in_as_the_numbers_it_stands_for(folder):
    torch.save(torch.tensor(NUMBERS).bfloat16(), "b.pt")
    assert bring("b.pt").exit_code == 0
    expected = torch.tensor(NUMBERS).bfloat16().float().numpy().astype(np.float16)
    assert np.array_equal(np.stack(list(stored().values())), expected)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("i.txt", "\ufeff" + "\r\n".join(reversed(IDS))),
        ("i.csv", "row,image\n" + "".join(f'{n},"{i}"\n' for n, i in enumerate(reversed(IDS)))),
        ("i.csv", "id\n" + "\n".join(reversed(IDS))),
        ("i.json", json.dumps(list(reversed(IDS)))),
    ],
)
def test_every_kind_of_list_names_the_row_of_every_image(folder, file, text):
    (folder / file).write_text(text, encoding="utf-8")
    assert bring("mine.npy", file, "mine", "--dtype", "float32").exit_code == 0
    rows = stored()
    assert all(np.array_equal(rows[i], NUMBERS[-1 - n]) for n, i in enumerate(IDS))


def test_several_files_are_one_embedding_and_the_order_of_the_files_does_not_matter(folder):
    for name, part in (("a", slice(0, 10)), ("b", slice(10, None))):
        np.save(f"{name}.npy", NUMBERS[part])
        (folder / f"{name}.txt").write_text("\n".join(IDS[part]))
    words = [["--npy", f"{n}.npy", "--ids", f"{n}.txt"] for n in "ba"]
    assert run("--name", "mine", "--dtype", "float32", *words[0], *words[1]).exit_code == 0
    assert np.array_equal(np.stack(list(stored().values())), NUMBERS)
    assert "nothing to do, all 18 rows" in bring("mine.npy", "ids.txt", "mine", "--dtype", "float32").stdout


def test_a_value_beyond_float16_makes_every_row_float32(folder):
    np.save("big.npy", NUMBERS * 1e6)
    result = bring("big.npy")
    assert "float16 cannot hold" in result.stderr and "float32" in result.stdout
    assert np.array_equal(np.stack(list(stored().values())), NUMBERS * np.float32(1e6))


def test_rows_of_some_images_leave_the_others_to_come(folder):
    (folder / "ids.txt").write_text("\n".join(IDS[:5]))
    np.save("mine.npy", NUMBERS[:5])
    assert bring().exit_code == 0
    assert list(stored()) == IDS[:5]
    # rows are those an extraction would have given: nothing moves when it comes
    assert EmbeddingStore.open("embeddings.zarr").image_ids == IDS
    assert extract(ExtractRequest(models=("pixels",))).written == len(IDS)


def test_images_of_the_store_are_known_without_their_folder(folder):
    bring()
    (folder / "images").rename(folder / "elsewhere")
    np.save("other.npy", 2 * NUMBERS)
    assert bring("other.npy", "ids.txt", "other").exit_code == 0


# AlignVis ---------------------------------------------------------------------------------------------------------


def alignvis(folder, encoder, numbers, *, ids=IDS):
    """As its scripts write them: a copy of the tree, (1, feature) each, and metadata nobody may unpickle."""
    for image_id, row in zip(ids, numbers, strict=True):
        path = folder / "image_embeddings" / image_id.replace(".jpg", f"_{encoder}.npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, row[None])
    np.save(folder / "image_embeddings/image_metadata.npy", np.array({"a": 1}, dtype=object), allow_pickle=True)


def test_a_folder_of_one_encoder_needs_no_list_and_no_suffix(folder):
    alignvis(folder, "dreamsim_clip_vitb32", NUMBERS)
    result = bring("image_embeddings", None, "mine", "--dtype", "float32")
    assert result.exit_code == 0 and "1 other .npy files, which are left out" in result.stderr
    assert np.array_equal(np.stack(list(stored().values())), NUMBERS)
    assert "nothing to do" in bring("mine.npy", "ids.txt", "mine", "--dtype", "float32").stdout


def test_of_several_encoders_one_is_chosen(folder):
    alignvis(folder, "dreamsim_ensemble", NUMBERS)
    alignvis(folder, "dreamsim_ensemble_noalign", 2 * NUMBERS)
    refused(
        bring("image_embeddings", None),
        "holds embeddings of 2 encoders",
        "--suffix: dreamsim_ensemble, dreamsim_ensemble_noalign",
    )
    for suffix, factor in (("dreamsim_ensemble", 1), ("dreamsim_ensemble_noalign", 2)):
        assert bring("image_embeddings", None, suffix, "--suffix", suffix, "--dtype", "float32").exit_code == 0
        assert np.array_equal(np.stack(list(stored(suffix).values())), factor * NUMBERS)
    refused(bring("image_embeddings", None, "x", "--suffix", "nothing"), "no file of 'image_embeddings' ends in")


def test_a_file_of_an_image_nobody_has_is_refused(folder):
    alignvis(folder, "enc", np.vstack([NUMBERS, NUMBERS[:1]]), ids=[*IDS, "training_images/9_x/x_01b.jpg"])
    refused(bring("image_embeddings", None), "1 of 19 files of 'image_embeddings' belong to no image that is known")
    assert not (folder / "embeddings.zarr").exists()


def test_files_of_another_width_or_many_rows_are_refused(folder):
    alignvis(folder, "enc", NUMBERS)
    path = folder / "image_embeddings" / IDS[4].replace(".jpg", "_enc.npy")
    np.save(path, np.ones((1, 3), "f4"))
    refused(bring("image_embeddings", None), "has 3 features, the ones before 7")
    np.save(path, np.ones((2, DIM), "f4"))
    refused(bring("image_embeddings", None), "it holds (2, 7), not one vector")


def test_images_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for concept in ("a", "b"):
        (tmp_path / concept).mkdir()
        (tmp_path / concept / "01_enc.npy").touch()
    found = find_per_image(tmp_path, ["images/a/01.jpg", "images/b/01.jpg", "images/c/01.jpg"]).files
    assert {i: f.parent.name for i, f in found.items()} == {"images/a/01.jpg": "a", "images/b/01.jpg": "b"}
    (tmp_path / "01_enc.npy").touch()
    with pytest.raises(EmbedctlError, match="fits several images"):
        find_per_image(tmp_path, ["images/a/01.jpg", "images/b/01.jpg"])


# What does not ----------------------------------------------------------------------------------------------------


class Malice:
    def __reduce__(self):
        return (open, ("ran", "w"))


def not_finite(value, row=3):
    numbers = NUMBERS.astype(np.float64)
    numbers[row, 2] = value
    return numbers


BAD = {
    "fewer.npy": (lambda p: np.save(p, NUMBERS[:-1]), "has 17 rows, 'ids.txt' 18 ids"),
    "nan.npy": (lambda p: np.save(p, not_finite(np.nan)), f"not finite, or beyond float32: row 3, '{IDS[3]}'"),
    "inf.npy": (lambda p: np.save(p, not_finite(np.inf)), "not finite"),
    "huge.npy": (lambda p: np.save(p, not_finite(1e300)), "beyond float32"),
    "tokens.npy": (lambda p: np.save(p, NUMBERS[:, None]), "has the shape (18, 1, 7), not (image, feature)"),
    "vector.npy": (lambda p: np.save(p, NUMBERS[0]), "has the shape (7,)"),
    "none.npy": (lambda p: np.save(p, NUMBERS[:0]), "has the shape (0, 7)"),
    "whole.npy": (lambda p: np.save(p, np.ones((18, 7), int)), "it holds int64, not floating-point numbers"),
    "complex.npy": (lambda p: np.save(p, NUMBERS.astype(complex)), "it holds complex128"),
    "objects.npy": (lambda p: np.save(p, np.array([Malice()], dtype=object), allow_pickle=True), "Python objects"),
    "pickle.npy": (lambda p: np.array([Malice()], dtype=object).dump(p), "it is no .npy file: a pickle"),
    "page.npy": (lambda p: p.write_text("<html>"), "it is no .npy file"),
    "short.npy": (lambda p: (np.save(p, NUMBERS), p.write_bytes(p.read_bytes()[:-9])), "it is cut off"),
    "objects.npz": (lambda p: np.savez(p, a=np.array([Malice()], dtype=object)), "'a' holds Python objects"),
    "two.npz": (lambda p: np.savez(p, a=NUMBERS, b=NUMBERS), "holds 2 arrays (image, feature): a (18, 7) float32, b"),
    "neither.npz": (lambda p: np.savez(p, a=NUMBERS[0], b=NUMBERS[0]), "holds 0 arrays (image, feature)"),
    "empty.npz": (lambda p: zipfile.ZipFile(p, "w").close(), "it is empty"),
    "cut.npz": (lambda p: (np.savez(p, NUMBERS), p.write_bytes(p.read_bytes()[:200])), "no complete .npz file"),
    "object.pt": (lambda p: torch.save({"a": Malice()}, p), "cannot be read as tensors"),
    "two.pt": (lambda p: torch.save({"a": torch.ones(18, 2), "b": torch.ones(18, 2)}, p), "holds 2 arrays"),
    "list.pt": (lambda p: torch.save([1, 2], p), "it holds no tensor"),
    "page.pt": (lambda p: p.write_text("<html>"), "it is a web page"),
    "mine.h5": (lambda p: p.write_bytes(b"h5"), "has no format that is known"),
}


@pytest.mark.parametrize("file", BAD)
def test_numbers_that_cannot_be_used_are_refused_before_anything_is_written(folder, file):
    write, what = BAD[file]
    write(folder / file)
    refused(bring(file), what)
    assert not (folder / "embeddings.zarr").exists() and not (folder / "ran").exists()


def test_a_header_that_claims_more_than_the_archive_holds_is_no_request_for_memory(folder):
    np.savez("bomb.npz", NUMBERS)
    with zipfile.ZipFile("bomb.npz") as archive:
        content = archive.read("arr_0.npy")
    assert content.count(b"(18, 7), }" + b" " * 11) == 1
    with zipfile.ZipFile("bomb.npz", "w") as archive:
        archive.writestr("arr_0.npy", content.replace(b"(18, 7), }" + b" " * 11, b"(18, 70000000000), }" + b" "))
    refused(bring("bomb.npz"), "no complete .npz file")


def test_a_header_without_end_is_not_read_to_its_end(folder):
    """Thirty kilobytes that say they hold a header of 100 MB, which NumPy would ask for at once."""
    head = b"\x93NUMPY\x02\x00" + struct.pack("<I", 100_000_000)
    with zipfile.ZipFile("head.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("arr_0.npy", head + bytes(30_000_000))
    tracemalloc.start()
    refused(bring("head.npz"), "no complete .npz file")
    with pytest.raises(EmbedctlError, match="not a complete"):
        read_affine(folder / "head.npz", 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize(
    ("file", "text", "what"),
    [
        ("twice.txt", "\n".join([*IDS[:-1], IDS[0]]), f"the image id '{IDS[0]}' comes twice"),
        ("unknown.txt", "\n".join([*IDS[:-1], "thing5_03b.jpg"]), "1 of 18 images are neither in 'images' nor in"),
        ("blank.txt", "\n".join([*IDS[:4], "", *IDS[5:]]), "number 5 of its ids is empty"),
        ("nothing.txt", "", "lists no image"),
        ("column.csv", "file\n" + "\n".join(IDS), "has no column 'image' or 'id', only file"),
        ("short.csv", "n,id\n" + "\n".join(f"1,{i}" for i in IDS[1:]) + "\n1", "number 18 of its ids is empty"),
        ("dict.json", '{"a": 1}', "is not a list of texts"),
        ("numbers.json", "[1, 2]", "is not a list of texts"),
        ("cut.json", '["a"', "is not JSON"),
        ("latin.txt", None, "is no text in UTF-8"),
        ("nowhere.txt", ..., "cannot be read: No such file"),
    ],
)
def test_ids_that_cannot_be_used_are_refused_before_anything_is_written(folder, file, text, what):
    if text is not ...:
        (folder / file).write_bytes(b"\xe9.jpg" if text is None else text.encode())
    refused(bring("mine.npy", file), what)
    assert not (folder / "embeddings.zarr").exists()


def test_an_unknown_id_comes_with_the_one_that_was_meant(folder):
    (folder / "ids.txt").write_text("\n".join([IDS[0].replace("training_images/", "train/"), *IDS[1:]]))
    refused(bring(), "1 of 18 images are", f"did you mean '{IDS[0]}'?")


def test_lists_and_files_must_be_as_many(folder):
    refused(run("--name", "x", "--npy", "mine.npy"), "1 file of embeddings, 0 lists of ids")


def test_a_name_that_is_none_and_a_workspace_without_images_are_refused(folder):
    refused(bring("mine.npy", "ids.txt", "a b"), "is not the name of an embedding")
    (folder / "images").rename(folder / "elsewhere")
    refused(bring(), "no folder 'images'")


# How it is marked -------------------------------------------------------------------------------------------------


def test_what_came_in_is_marked_wherever_it_is_shown(folder):
    bring()
    entry = EmbeddingStore.open("embeddings.zarr").entries()[0]
    assert entry.provenance["imported"] is True and entry.provenance["weights"] == "imported, unverified"
    assert entry.provenance["weights_source"] == "file:mine.npy"
    shown = CliRunner().invoke(app, ["show", "embeddings.zarr"]).stdout
    assert "imported, unverified" in shown
    assert "imported, unverified" in embedctl.open_embeddings("embeddings.zarr")._repr_html_()


def test_it_never_counts_as_published_even_under_the_name_of_an_encoder(folder):
    result = bring("mine.npy", "ids.txt", "pixels")
    assert "is an encoder of the registry" in result.stderr
    extract(ExtractRequest(models=("pixels",)))
    store = EmbeddingStore.open("embeddings.zarr")
    assert store.resolve("pixels").provenance["weights"] == "none"
    imported = next(entry for entry in store.entries() if entry.provenance["imported"])
    assert not imported.published and f"pixels#{imported.key}" in store.names


def test_other_numbers_under_one_name_get_another_key_and_the_bare_name_is_refused(folder):
    bring()
    np.save("other.npy", -NUMBERS)
    assert "now has" not in bring("mine.npy").stderr
    assert "'mine' now has 2 keys: 'mine#" in bring("other.npy").stderr
    with pytest.raises(EmbedctlError, match="'mine' is stored with 2 keys"):
        EmbeddingStore.open("embeddings.zarr").resolve("mine")


def test_an_affine_map_is_never_applied_to_imported_rows(folder):
    np.save("base.npy", np.ones((len(IDS), 512), "f4"))
    bring("base.npy", "ids.txt", "resnet18-tv")
    with pytest.raises(NotHere):
        extract(ExtractRequest(models=("glocal-resnet18",), offline=True))


# Again, and interrupted -------------------------------------------------------------------------------------------


def test_a_dry_run_checks_everything_and_writes_nothing(folder):
    result = bring("mine.npy", "ids.txt", "mine", "--dry-run")
    assert "18 rows of 'mine' (7 x float16) to import, 0 there already" in result.stdout
    assert not (folder / "embeddings.zarr").exists()
    bring()
    assert (
        "0 rows of 'mine' (7 x float16) to import, 18 there already"
        in bring("mine.npy", "ids.txt", "mine", "--dry-run").stdout
    )


def test_json_says_what_was_done(folder):
    said = json.loads(bring("mine.npy", "ids.txt", "mine", "--json").stdout)
    assert (said["schema_version"], said["written"], said["already"], said["dim"]) == (1, 18, 0, DIM)


def test_running_it_again_changes_no_file(folder):
    bring()
    before = {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in folder.glob("embeddings.zarr/**/*") if f.is_file()}
    assert "nothing to do, all 18 rows of 'mine' (7 x float16) are there already" in bring().stdout
    assert before == {f: (f.stat().st_mtime_ns, f.read_bytes()) for f in before}


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(6)), n=st.integers(1, 6))
def test_whatever_order_ids_come_in_each_image_has_its_own_row(tmp_path_factory, order, n):
    folder = tmp_path_factory.mktemp("any")
    (folder / "images").mkdir()
    for i in range(6):
        (folder / f"images/{i}.png").write_bytes(b"never read")
    np.save(folder / "x.npy", np.array([[i, -i] for i in order[:n]], "f4"))
    (folder / "ids.txt").write_text("".join(f"{i}.png\n" for i in order[:n]))
    request = ImportRequest(
        name="x",
        arrays=(folder / "x.npy",),
        ids=(folder / "ids.txt",),
        images=folder / "images",
        store=folder / "e.zarr",
    )
    import_embeddings(request)
    found = EmbeddingStore.open(folder / "e.zarr")["x"]
    assert {int(image_id[0]): row.tolist() for image_id, row in zip(found.image_ids, found.values, strict=True)} == {
        i: [i, -i] for i in order[:n]
    }
