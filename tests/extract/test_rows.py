"""The rows of a store are what the library's own transform and network give for its images."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.encoders.torchvision_import import torchvision
from pipelines.extract.images import read
from pipelines.extract.views import see
from tests.extract.extracting import CONTROLS, opened, rows_of, run


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


def test_tokens_are_stored_flat_with_their_shape(few):
    run(few, "resnet18-tv:layer4.tokens", weights="random:7", batch_size=6)
    stored = opened(few)["resnet18-tv:layer4.tokens"]
    assert stored.provenance["token_shape"] == [49, 512] and stored.dim == 49 * 512


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
