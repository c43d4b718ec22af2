"""`--memory-budget`: what does not fit together goes over the images in rounds, to the same bytes."""

import gc
import weakref
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.encoders.build import Encoder, build
from pipelines.encoders.registry import find
from pipelines.extract import forward
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from pipelines.extract.rounds import Footprint, into_rounds, rounds
from pipelines.progress import SILENT
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError
from stores.names import EmbeddingName
from tests.photos import write_photographs


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), min_size=1, max_size=12), st.integers(150, 400))
def test_every_encoder_is_in_one_round_and_no_round_is_over_the_budget(sizes, budget):
    footprints = {f"e{n}": Footprint(*size) for n, size in enumerate(sizes)}
    found = into_rounds(footprints, budget)
    assert sorted(e for together in found for e in together) == sorted(footprints)
    for together in found:
        mine = [footprints[e] for e in together]
        assert sum(one.weights for one in mine) + max(one.step for one in mine) <= budget


def test_an_encoder_beyond_the_budget_is_named():
    with pytest.raises(EmbedctlError, match="'big' alone takes 3 MB") as problem:
        into_rounds({"big": Footprint(2_000_000, 1_000_000)}, 2_500_000)
    assert "--memory-budget" in problem.value.hint


def test_the_footprint_is_that_of_the_weights_and_of_the_widest_layer():
    taps = [EmbeddingName.parse("resnet18-tv:output")]
    weights, step = build(find("resnet18-tv"), weights="random:0", taps=taps, device="meta").footprint()
    wide = 9 * (3 * 128**2 + 3 * 256**2 + 3 * 512**2)  # of 3 x 3, with 36 numbers for nine in the form that has most
    assert weights == pytest.approx((11_689_512 + 4 * wide) * 4, rel=0.02)  # torchvision's own count, less its head
    assert step == 2 * 64 * 112 * 112 * 4  # normalisation after the first convolution: as much out as in


def test_rounds_write_the_bytes_of_one_pass(tmp_path, monkeypatch):
    write_photographs(tmp_path / "images", 4)
    request = ExtractRequest(models=("pixels", "colour-histogram"), images=tmp_path / "images", store=tmp_path / "a")
    together = extract(request)
    request = replace(request, store=tmp_path / "b", memory_budget=1000)
    monkeypatch.setattr(Encoder, "footprint", lambda self: (900, 0))
    in_rounds = extract(request)
    assert (in_rounds.written, in_rounds.n_read) == (together.written, 2 * together.n_read)
    for name in request.models:
        one, other = (EmbeddingStore.open(tmp_path / store)[name] for store in "ab")
        assert one.key == other.key and one.values.tobytes() == other.values.tobytes()


def test_the_networks_of_a_round_are_gone_when_those_of_the_next_are_built(tmp_path, monkeypatch):
    left, build_networks = [], forward.build_networks

    def build(*args):
        networks = build_networks(*args)
        left.append([before() for before in built])
        object.__setattr__(networks, "itself", networks)  # as PyTorch's refer to themselves
        built.append(weakref.ref(networks))
        return networks

    built = []
    monkeypatch.setattr(forward, "build_networks", build)
    monkeypatch.setattr(Encoder, "footprint", lambda self: (900, 0))
    write_photographs(tmp_path / "images", 2)
    gc.disable()
    try:
        models = ("pixels", "colour-histogram")
        extract(ExtractRequest(models=models, images=tmp_path / "images", store=tmp_path / "a", memory_budget=1000))
    finally:
        gc.enable()
    assert left == [[], [None]]


@pytest.mark.parametrize(("workers", "expected"), [(0, (1000, 10 * 4 * 2)), (2, (2 * 1000, 10 * 4 * 2))])
def test_what_a_round_takes_is_counted_at_the_recorded_batch_size_and_in_every_process(
    tmp_path, monkeypatch, workers, expected
):
    write_photographs(tmp_path / "images", 1)
    request = ExtractRequest(models=("pixels",), images=tmp_path / "images", store=tmp_path / "a", batch_size=4)
    extract(request)
    monkeypatch.setattr(Encoder, "footprint", lambda self: (1000, 10))
    monkeypatch.setattr("pipelines.extract.rounds.n_cores", lambda: 2)
    counted = []
    monkeypatch.setattr("pipelines.extract.rounds.into_rounds", lambda sizes, budget: counted.append(sizes) or [[]])
    rounds(replace(request, batch_size=None, workers=workers, memory_budget=1), SILENT)
    assert counted == [{"pixels": expected}]
