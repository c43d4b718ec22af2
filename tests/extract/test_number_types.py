"""Numbers that float16, or no number type, can hold."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pipelines.encoders.classical import Pixels
from pipelines.extract.block import rounded
from tests.extract.extracting import opened, run


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


def test_what_float16_cannot_hold_is_noticed_in_its_first_batch_and_why_it_begins_again_is_told(images, monkeypatch):
    plain, said = Pixels.forward, []
    listener = SimpleNamespace(start=lambda *work: None, advance=lambda n, **figures: None, say=said.append)
    monkeypatch.setattr(Pixels, "forward", lambda self, x: plain(self, x) * 1e9)
    assert run(images, "pixels", batch_size=4, progress=listener).n_read == 4 + 20
    assert "float16 cannot hold" in said[-1] and said[-1].endswith("the pass begins again")


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
