"""What a run tells before and while it works: a dry run, what cannot be done, progress."""

import shutil
from dataclasses import replace

import pytest
import torch

from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.errors import CannotWrite, EmbedctlError, NotHere, UnknownName
from tests.extract.extracting import files_of, run
from tests.photos import write_photographs


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
    assert problem.value.exit_code == 7 and "kB are free" in str(problem.value) and not forwards
    assert not (images.parent / "embeddings.zarr").exists(), "a store was begun"


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
