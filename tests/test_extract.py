"""Images on the disk to rows in a store, through the whole path."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import current_thread

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pipelines.encoders.build import Encoder
from pipelines.encoders.classical import Pixels
from pipelines.encoders.torchvision_import import torchvision
from pipelines.extract.block import rounded
from pipelines.extract.extract import extract
from pipelines.extract.images import read
from pipelines.extract.request import ExtractReport, ExtractRequest
from pipelines.extract.views import see
from stores.embeddings import EmbeddingStore
from stores.errors import CannotWrite, EmbedctlError, NotHere, StoreMismatch, UnknownName
from stores.images import ImageRecord
from stores.names import EmbeddingName
from tests.photos import broken_files, photograph, write_photographs

CONTROLS = ("pixels", "gabor-pyramid", "hog", "colour-histogram")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_photographs(folder, 20)
    return folder


@pytest.fixture
def images(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "images"))


@pytest.fixture
def few(tmp_path) -> Path:
    """For networks, which take their time."""
    write_photographs(tmp_path / "images", 6, first=2)
    return tmp_path / "images"


def run(images: Path, *models: str, store: str = "embeddings.zarr", **options) -> ExtractReport:
    defaults = {"models": models or ("pixels",), "store": images.parent / store, "batch_size": None}
    return extract(ExtractRequest(images=images, **{**defaults, **options}))


def opened(images: Path, store: str = "embeddings.zarr") -> EmbeddingStore:
    return EmbeddingStore.open(images.parent / store)


def rows_of(images: Path, name: str, store: str = "embeddings.zarr") -> dict[str, bytes]:
    """Return the stored bytes of every committed row, by image id."""
    embedding = opened(images, store)[name]
    return {image_id: row.tobytes() for image_id, row in zip(embedding.image_ids, embedding.values, strict=True)}


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(f): (f.stat().st_mtime_ns, f.read_bytes()) for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def forwards(monkeypatch) -> list[str]:
    """The encoder of every forward pass, in order; building an encoder probes it, which is not counted."""
    passes = []
    plain = Encoder.__call__

    def counted(self, batch):
        if len(batch) > 2:
            passes.append(self.spec.id)
        return plain(self, batch)

    monkeypatch.setattr(Encoder, "__call__", counted)
    return passes


# What is computed


def test_an_image_that_changed_when_its_embeddings_are_gone_is_no_problem(tmp_path):
    write_photographs(tmp_path / "images", 3)
    request = ExtractRequest(models=("pixels",), images=tmp_path / "images", store=tmp_path / "e.zarr")
    extract(request)
    store = EmbeddingStore.open(request.store)
    store.remove(store.resolve("pixels"))
    write_photographs(tmp_path / "images", 1, seed=9)
    assert extract(request).written == 3


def test_rows_are_those_of_a_plain_loop_over_library_transform_and_library_model(few):
    run(few, "resnet18-tv", weights="random:7", dtype="float32", exact=True, batch_size=6)
    run(few, "resnet18-tv", weights="random:7", dtype="float16", exact=True, batch_size=6, store="half.zarr")
    stored = opened(few)["resnet18-tv"]

    torch.manual_seed(7)
    model = torchvision.models.resnet18(weights=None).eval()
    model.fc = torch.nn.Identity()
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    with torch.inference_mode():
        plain = [model(transform(Image.open(few / i).convert("RGB"))[None])[0].numpy() for i in stored.image_ids]

    assert np.abs(stored.values - plain).max() < 1e-5 and stored.dtype == np.float32
    half = opened(few, "half.zarr")["resnet18-tv"]
    assert np.array_equal(half.values, stored.values.astype(np.float16)) and half.dtype == np.float16


def test_the_fast_path_is_close_to_the_exact_one(images):
    run(images, *CONTROLS, dtype="float32")
    run(images, *CONTROLS, dtype="float32", exact=True, store="exact.zarr")
    for name in CONTROLS:
        fast, exact = opened(images)[name].values, opened(images, "exact.zarr")[name].values
        cosine = (fast * exact).sum(1) / np.linalg.norm(fast, axis=1) / np.linalg.norm(exact, axis=1)
        assert cosine.min() > 0.98, name


def test_several_layers_come_out_of_one_forward_pass(few, forwards):
    run(few, "resnet18-tv:layer1", "resnet18-tv:layer2", "resnet18-tv", weights="random:7", batch_size=6)
    assert forwards == ["resnet18-tv"]
    assert opened(few).names == ["resnet18-tv", "resnet18-tv:layer1", "resnet18-tv:layer2"]


def test_tokens_are_stored_flat_with_their_shape(few):
    run(few, "resnet18-tv:layer4.tokens", weights="random:7", batch_size=6)
    stored = opened(few)["resnet18-tv:layer4.tokens"]
    assert stored.provenance["token_shape"] == [49, 512] and stored.dim == 49 * 512


def test_an_image_is_read_and_decoded_once_and_a_view_made_once_whatever_the_number_of_encoders(few, monkeypatch):
    from pipelines.extract import loading

    n_decoded, made = [], []
    decode, see = loading.decode, loading.see
    monkeypatch.setattr(loading, "decode", lambda data: n_decoded.append(1) or decode(data))
    monkeypatch.setattr(loading, "see", lambda image, view: made.append(view) or see(image, view))
    run(few, *CONTROLS, "resnet18-tv@grey", views=("blur-9", "noise-10"), weights="random:7", batch_size=6)
    assert len(n_decoded) == 6
    assert {view: made.count(view) for view in made} == {"blur-9": 6, "noise-10": 6, "grey": 6}


def test_a_view_costs_one_forward_pass_whatever_the_number_of_layers(few, forwards):
    run(few, "resnet18-tv", layers=("layer1", "layer2"), views=("grey", "blur-9"), weights="random:7", batch_size=6)
    assert forwards == ["resnet18-tv"] * 2 and len(opened(few).names) == 4


@pytest.mark.parametrize("exact", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rows_of_a_view_are_those_of_images_that_look_so(few, exact):
    views = ("blur-9", "fovea-low", "lowres-20", "noise-25", "mosaic-9", "grey")
    run(few, "hog", views=views, exact=exact, batch_size=6)
    for view in views:
        copies = few.parent / view
        for path in few.rglob("*.*"):
            target = (copies / path.relative_to(few)).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            see(read(path), view).image.save(target)
        run(copies, "hog", store=f"{view}.zarr", exact=exact, batch_size=6)
        ours, theirs = rows_of(few, f"hog@{view}"), rows_of(copies, "hog", f"{view}.zarr")
        assert list(ours.values()) == list(theirs.values()) and len(set(ours.values())) == 6
    told = opened(few)["hog@blur-9"].provenance
    assert told["view"] == "blur-9" and told["view_definition"].startswith("blur-SIGMA: ")


def test_noise_is_that_of_the_content_whatever_its_name_place_and_company(images):
    run(images, "pixels@noise-25")
    other = images.parent / "other" / "images"
    other.mkdir(parents=True)
    shutil.copy(images / "concept_002/photo_0017.webp", other / "z.webp")
    run(other, "pixels@noise-25", "pixels")
    assert (
        rows_of(other, "pixels@noise-25")["z.webp"]
        == (rows_of(images, "pixels@noise-25")["concept_002/photo_0017.webp"])
    )


def test_threads_use_one_core_each_and_the_networks_have_several_of_them(images, monkeypatch):
    from pipelines.extract import forward

    seen = {"preparing": set(), "forward": set()}
    plain, normalise = forward.fast_transform, forward.normalise

    def fast_transform(p):
        transform = plain(p)
        return lambda rgb: (transform(rgb), seen["preparing"].add(torch.get_num_threads()))[0]

    monkeypatch.setattr(forward, "fast_transform", fast_transform)
    monkeypatch.setattr(
        forward,
        "normalise",
        lambda x, p: (seen["forward"].add((torch.get_num_threads(), current_thread().name[:5])), normalise(x, p))[1],
    )
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(images)
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
    assert seen == {"preparing": {1}, "forward": {(1, "cores")}} and after == 3


def test_a_zip_gives_the_rows_of_the_folder_it_was_made_of(images):
    run(images)
    packed = shutil.make_archive(str(images.parent / "packed"), "zip", images)
    run(Path(packed), store="zip.zarr")
    assert rows_of(images, "pixels") == rows_of(images, "pixels", "zip.zarr")


def test_provenance_tells_everything_needed_to_compute_the_rows_again(few):
    run(few, "resnet18-tv", weights="random:7", batch_size=6)
    told = opened(few)["resnet18-tv"].provenance
    assert told["weights"] == "random:7" and told["weights_source"] == "torch.manual_seed(7)"
    assert (told["batch_size"], told["compute_dtype"], told["exact"], told["imported"]) == (6, "float32", False, False)
    assert told["registry"]["id"] == "resnet18-tv" and told["preprocessing"]["resize_to"] == 256
    assert told["versions"]["torch"] == torch.__version__ and told["date"].endswith("+00:00")
    record = opened(few).images()["concept_000/photo_0002.jpg"]
    assert len(record.sha256) == 64 and (record.width, record.height, record.mode) == (112, 88, "RGB")


def test_weights_may_be_a_file_and_are_told_by_their_digest(few):
    torch.manual_seed(7)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), few.parent / "mine.pth")
    run(few, "resnet18-tv", weights="random:7", batch_size=6)
    run(few, "resnet18-tv", weights=str(few.parent / "mine.pth"), batch_size=6, store="file.zarr")
    assert rows_of(few, "resnet18-tv") == rows_of(few, "resnet18-tv", "file.zarr")
    told = opened(few, "file.zarr")["resnet18-tv"].provenance
    assert told["weights"].startswith("sha256:") and told["weights_source"].startswith("file:")


# Running again


def test_a_second_run_does_nothing_opens_no_image_and_says_so(images, monkeypatch, forwards):
    run(images, *CONTROLS)
    before, n_forwards = files_of(images.parent), len(forwards)
    monkeypatch.setattr("pipelines.extract.sources._Folder.read", lambda *_: pytest.fail("opened an image"))
    report = run(images, *CONTROLS)
    assert (report.written, report.already, report.to_do, len(forwards)) == (0, 80, 0, n_forwards)
    assert files_of(images.parent) == before


def test_a_second_run_imports_no_torch(few):
    run(few, "resnet18-tv", "resnet18-tv:layer1", weights="random:7", batch_size=6)
    code = f"""
import sys
from dataclasses import replace
from pathlib import Path
from pipelines.extract.block import rounded
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
models, folder = ("resnet18-tv", "resnet18-tv:layer1"), Path({str(few)!r})
store = folder.parent / "embeddings.zarr"
report = extract(ExtractRequest(models=models, images=folder, store=store, weights="random:7"))
assert (report.written, report.already) == (0, 12), report
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ten_added_images_compute_ten_rows_and_leave_the_others_alone(images, forwards):
    run(images, "pixels", "hog", batch_size=8)
    before = {name: rows_of(images, name) for name in ("pixels", "hog")}
    added = write_photographs(images, 10, first=20)
    forwards.clear()
    report = run(images, "pixels")
    assert (report.written, report.already) == (10, 20)
    # Rows 20 to 29 of a block in batches of 8: numbers 2 and 3.
    assert forwards == ["pixels", "pixels"]
    after = rows_of(images, "pixels")
    assert {i: after[i] for i in before["pixels"]} == before["pixels"] and set(after) - set(before["pixels"]) == set(
        added
    )
    hog = opened(images).resolve("hog")
    assert opened(images).committed(hog).sum() == 20 and not opened(images).absent(hog)
    assert run(images, "pixels", "hog").written == 10


def test_rows_that_were_there_before_anybody_read_their_image_stay(images):
    """As an import leaves them: images known by their ids alone."""
    ids = sorted(str(file.relative_to(images)) for file in images.rglob("*.*"))
    store = EmbeddingStore.open(images.parent / "embeddings.zarr", create=True)
    store.add_images([ImageRecord(image_id, "", 0, 0, 0, 0, "") for image_id in ids])
    entry = store.create(EmbeddingName("mine"), "0a1b", dim=2, dtype="float32", provenance={"imported": True})
    store.write_block(0, {entry.group: (np.arange(20), np.ones((20, 2), np.float32))}, {})
    assert run(images).written == 20
    assert len(opened(images)["mine"]) == 20
    assert all(record.sha256 for record in opened(images).images().values())


def test_a_new_embedding_costs_no_forward_pass_of_those_that_are_complete(images, forwards):
    run(images, "pixels")
    run(images, "pixels", "hog")
    assert forwards == ["pixels", "hog"]


def test_images_that_disappeared_keep_their_rows(images):
    run(images)
    before = rows_of(images, "pixels")
    (images / "concept_000/photo_0000.jpg").unlink()
    assert run(images).written == 0
    assert rows_of(images, "pixels") == before
    assert run(images, "hog").written == 19


def test_a_copied_folder_with_new_times_is_the_same_folder_after_one_hashing(images):
    run(images)
    for file in images.rglob("*.*"):
        os.utime(file, ns=(1, 1))
    assert run(images).written == 0
    assert {record.mtime_ns for record in opened(images).images().values()} == {1}


def test_another_batch_size_is_refused_and_none_adopts_the_recorded_one(images):
    run(images, batch_size=8)
    with pytest.raises(StoreMismatch, match="batch size 8, not 16"):
        run(images, batch_size=16)
    write_photographs(images, 2, first=20)
    assert [line.batch_size for line in run(images).embeddings] == [8]
    assert run(images, batch_size=16, overwrite=True).written == 22
    assert [entry.provenance["batch_size"] for entry in opened(images).entries()] == [16]


def test_overwrite_computes_every_row_again_to_the_same_bytes(images):
    run(images)
    before = rows_of(images, "pixels")
    assert run(images, overwrite=True).written == 20
    assert rows_of(images, "pixels") == before


# The same bytes whatever happened before


@pytest.mark.parametrize("models", [("pixels", "hog"), ("resnet18-tv",)])
def test_rows_do_not_depend_on_order_company_or_interruption(few, models, monkeypatch):
    """Everything at once; then images in two portions, with a bad one, one model at a time, after a failure."""
    options = {"weights": "random:7", "batch_size": 4}
    run(few, *models, **options)
    expected = {name: rows_of(few, name) for name in models}

    other = few.parent / "other" / "images"
    portion = sorted(expected[models[0]])[1::2]
    for image_id in portion:
        (other / image_id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(few / image_id, other / image_id)
    (other / "a.jpg").write_bytes(b"")
    with monkeypatch.context() as broken:
        broken.setattr(EmbeddingStore, "write_block", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(other, *models, **options)
    for name in models[::-1]:
        run(other, name, **options)
    shutil.copytree(few, other, dirs_exist_ok=True)
    run(other, *models, **options)
    for name in models:
        assert rows_of(other, name) == expected[name]


# Bad and changed images


def test_broken_files_are_skipped_with_reasons_and_every_other_row_is_right(images):
    run(images, *CONTROLS, store="clean.zarr")
    broken = broken_files(photograph(0))
    for name, data in broken.items():
        (images / name).write_bytes(data)
    report = run(images, *CONTROLS)
    assert set(report.skipped) == set(broken) and all(report.skipped.values())
    assert [(line.written, line.absent) for line in report.embeddings] == [(20, len(broken))] * 4
    for name in CONTROLS:
        assert rows_of(images, name) == rows_of(images, name, "clean.zarr")
        assert opened(images)[name].absent == report.skipped
    again = run(images, *CONTROLS)
    assert again.written == 0 and again.skipped == report.skipped


def test_a_folder_of_bad_images_only_is_finished_and_stays_so(images):
    shutil.rmtree(images)
    images.mkdir()
    (images / "a.jpg").write_bytes(b"")
    for _ in range(2):
        report = run(images)
        assert report.skipped == {"a.jpg": "the file is empty"} and report.written == 0


def test_a_bad_file_that_was_repaired_gets_its_row_by_itself(images):
    name = "concept_000/photo_0000.jpg"
    good = (images / name).read_bytes()
    (images / name).write_bytes(good[:500])
    assert run(images, "pixels", "hog").skipped
    (images / name).write_bytes(good)
    assert run(images, "pixels").written == 1
    assert run(images, "hog").written == 1 and not run(images, "pixels", "hog").skipped


def test_an_image_that_could_not_be_read_is_tried_again(images):
    (images / "a.jpg").symlink_to(images / "later.bin")
    assert run(images).skipped == {"a.jpg": "cannot be read: No such file or directory"}
    assert run(images).written == 0
    shutil.copy(images / "concept_000/photo_0000.jpg", images / "later.bin")
    report = run(images)
    assert report.written == 1 and not report.skipped
    rows = rows_of(images, "pixels")
    assert rows["a.jpg"] == rows["concept_000/photo_0000.jpg"]


def test_a_changed_image_is_an_error_that_names_it_and_refresh_computes_it_again(images, forwards):
    run(images, "pixels", "hog", batch_size=8)
    name = "concept_001/photo_0009.jpg"
    before = rows_of(images, "pixels")
    shutil.copy(images / "concept_000/photo_0000.jpg", images / name)
    with pytest.raises(EmbedctlError, match=name) as problem:
        run(images, "pixels")
    assert problem.value.exit_code == 2 and "--refresh" in problem.value.hint
    assert rows_of(images, "pixels") == before
    forwards.clear()
    assert run(images, "pixels", refresh=True).written == 1
    assert forwards == ["pixels"]
    after = rows_of(images, "pixels")
    assert after[name] == before["concept_000/photo_0000.jpg"]
    assert {i: row for i, row in after.items() if i != name} == {i: row for i, row in before.items() if i != name}
    # The embedding that was not asked for has no row of the old image any more.
    assert name not in opened(images)["hog"].image_ids
    assert run(images, "hog").written == 1


def test_refresh_finds_a_change_that_kept_size_and_time(images):
    run(images)
    name = images / "concept_000/photo_0000.jpg"
    stat, data = name.stat(), bytearray(name.read_bytes())
    data[-40] ^= 1
    name.write_bytes(data)
    os.utime(name, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(images).written == 0
    with pytest.raises(EmbedctlError, match="photo_0000"):  # found on the way, when another embedding reads it
        run(images, "hog")
    assert run(images, refresh=True).written == 1


# Numbers that float16 or nobody can hold


def test_one_value_beyond_float16_makes_the_whole_embedding_float32(images, monkeypatch):
    plain = Pixels.forward
    bright = "concept_002/photo_0019.jpg"
    Image.new("RGB", (96, 72), "white").save(images / bright)
    monkeypatch.setattr(Pixels, "forward", lambda self, x: plain(self, x) * 65520 + (65520 if x.min() > 1 else 0))
    report = run(images, "pixels", "hog", batch_size=4)
    assert [(line.dtype, line.written) for line in report.embeddings] == [("float32", 20), ("float16", 20)]
    entry, _ = sorted(opened(images).entries(), key=lambda e: e.dtype, reverse=False)[::-1]
    stored = opened(images)["pixels"]
    assert stored.dtype == np.float32 and stored.take([stored.image_ids.index(bright)]).max() == 65520
    assert "float16" in entry.provenance["note"] and len(opened(images).entries()) == 2
    assert run(images, "pixels", "hog").written == 0


def test_what_float16_cannot_hold_is_noticed_in_its_first_batch(images, monkeypatch):
    plain = Pixels.forward
    monkeypatch.setattr(Pixels, "forward", lambda self, x: plain(self, x) * 1e9)
    assert run(images, "pixels", batch_size=4).n_read == 4 + 20


@given(
    hnp.arrays(np.float32, (4, 20), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([1e-9, 1e-6, 1e-3, 1.0, 100.0]),
)
def test_what_is_stored_as_float16_is_within_a_thousandth_and_mostly_there(values, scale):
    values = values * np.float32(scale)
    stored, unfit = rounded(values, "float16")
    length, change = (np.linalg.norm(x.astype(float), axis=1) for x in (values, stored - values.astype(float)))
    lost = ((stored == 0) & (values != 0)).sum(1) > (values != 0).sum(1) / 2
    assert unfit == bool((change > length / 1000).any() or lost.any())
    if np.abs(values[values != 0]).min(initial=1) > 6.2e-5:
        assert not unfit  # nothing below float16's full precision


def test_features_too_small_for_float16_make_the_embedding_float32(few):
    """The random network gives features of about 1e-8, of which float16 would keep zeros."""
    report = run(few, "mobilenetv3-small-tv", weights="random:0", batch_size=6)
    stored = opened(few)["mobilenetv3-small-tv"]
    assert report.embeddings[0].dtype == "float32" == stored.dtype and "float16" in stored.provenance["note"]
    assert np.count_nonzero(stored.values) > stored.values.size / 2 > np.count_nonzero(stored.values.astype("f2"))
    assert run(few, "mobilenetv3-small-tv", weights="random:0").written == 0


def test_an_image_whose_numbers_are_not_finite_is_absent_from_that_embedding_only(images, monkeypatch):
    plain = Pixels.forward
    Image.new("RGB", (96, 72), "black").save(images / "black.png")
    monkeypatch.setattr(Pixels, "forward", lambda self, x: plain(self, x) / x.mean((1, 2, 3))[:, None])
    report = run(images, "pixels", "hog", batch_size=1)
    assert report.skipped == {"black.png": "'pixels' gives numbers for it that are not finite"}
    assert [line.written for line in report.embeddings] == [20, 21]
    assert run(images, "pixels", "hog").written == 0


# What cannot be done


def test_a_dry_run_tells_what_is_to_do_and_writes_nothing(images):
    before = files_of(images.parent)
    report = run(images, "pixels", "resnet18-tv:layer1", weights="random:7", dry_run=True)
    assert [(line.to_do, line.dim) for line in report.embeddings] == [(20, 768), (20, 64)]
    assert report.bytes_needed == 64 * (768 + 64) * 2 and report.bytes_free > 0 and report.dry_run
    assert files_of(images.parent) == before
    run(images, "pixels")
    assert run(images, "pixels", dry_run=True).to_do == 0
    assert (report.seconds_expected, run(images, "pixels", dry_run=True).seconds_expected) == (None, 0)
    write_photographs(images, 10, first=20)
    expected = [run(images, "pixels", *more, dry_run=True).seconds_expected for more in ([], ["hog"])]
    assert 0 < expected[0] < 60 and expected[1] is None, "of hog nobody knows"


def test_a_dry_run_names_weights_that_are_to_be_fetched_and_fetches_none(images, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(images.parent / "no weights"))
    monkeypatch.setattr("pipelines.encoders.fetch.urlopen", lambda *_, **__: pytest.fail("went to the network"))
    report = run(images, "resnet18-tv", "pixels", dry_run=True)
    assert list(report.to_fetch) == ["resnet18-tv"] and report.to_do == 40


def test_a_disk_without_room_is_told_before_any_work(images, monkeypatch, forwards):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 1000))
    with pytest.raises(CannotWrite) as problem:
        run(images)
    assert problem.value.exit_code == 7 and "MB" in str(problem.value) and not forwards


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        ({"images": "missing"}, EmbedctlError, 2),
        ({"images": "empty"}, EmbedctlError, 2),
        ({"models": ("pixles",)}, UnknownName, 2),
        ({"models": ("resnet18-tv:layer9",), "weights": "random:7"}, UnknownName, 2),
        ({"models": ("pixels@sepia",)}, EmbedctlError, 2),
        ({"device": "tpu"}, EmbedctlError, 2),
        pytest.param(
            {"device": "cuda"}, NotHere, 6, marks=pytest.mark.skipif(torch.cuda.is_available(), reason="has CUDA")
        ),
        ({"models": ("resnet18-tv",), "offline": True}, NotHere, 6),
        ({"store": "images"}, EmbedctlError, 2),
    ],
)
def test_what_cannot_be_done_is_two_lines_and_an_exit_code(images, options, error, code, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(images.parent / "no weights"))
    (images.parent / "empty").mkdir()
    options = {key: images.parent / value if key in ("images", "store") else value for key, value in options.items()}
    request = {"models": ("pixels",), "images": images, "store": images.parent / "embeddings.zarr", **options}
    with pytest.raises(error) as problem:
        extract(ExtractRequest(**request))
    assert problem.value.exit_code == code and problem.value.hint and "\n" not in str(problem.value)


class Listener:
    def __init__(self):
        self.total, self.n, self.said, self.figures = 0, 0, [], {}

    def start(self, label, total, unit):
        self.total += total

    def advance(self, n=1, **figures):
        self.n, self.figures = self.n + n, figures

    def say(self, text):
        self.said.append(text)


def test_progress_counts_the_images_that_are_read_and_says_what_was_decided(images):
    request = ExtractRequest(models=("pixels", "hog"), images=images, store=images.parent / "e.zarr", batch_size=8)
    listener = Listener()
    extract(request, listener)
    assert (listener.total, listener.n) == (20, 20)
    shares = [
        int(listener.figures.pop(stage).removesuffix(" %"))
        for stage in ("read", "decode", "preprocess", "forward", "write")
    ]
    assert 96 < sum(shares) < 104 and list(listener.figures) == ["images/s"] and listener.figures["images/s"] > 0
    (images / "concept_000/photo_0000.jpg").unlink()
    write_photographs(images, 1, first=20)
    listener = Listener()
    extract(replace(request, batch_size=None), listener)
    assert listener.n == 1
    for words in ("batches of 8", "not in the folder, 1"):
        assert any(words in said for said in listener.said)


def test_a_run_killed_before_its_end_is_ended_by_the_next(tmp_path, monkeypatch):
    zarr = pytest.importorskip("zarr")
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "one.png")
    request = ExtractRequest(models=("pixels",), images=tmp_path, store=tmp_path / "e.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingStore, "consolidate", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            extract(request)
    assert extract(request).written == 0
    assert len(dict(zarr.open_group(tmp_path / "e.zarr", mode="r").members())) == 2
