"""What the store recorded of the first write holds for every later one: threads and device, beside the batch size."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from embedctl.cli import app
from pipelines.encoders import registry as cards
from pipelines.encoders.build import build
from pipelines.encoders.registry import add_cards, registry
from pipelines.extract import forms, forward
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from pipelines.extract.targets import choose_targets
from pipelines.progress import SILENT
from stores.embedding import Entry
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, NotHere, StoreMismatch
from stores.merge import merge
from stores.parts import Part
from tests.photos import write_photographs

SMALL = '{ resize = "bilinear", fit = "squash", resize_to = 64, size = 64, norm = "imagenet" }'
CARD = """
[small-resnet]
family = "torchvision"
model = {{ name = "resnet18" }}
tap = "avgpool"
pooling = "flatten"
dim = {dim}
input = {input}
"""


@pytest.fixture
def images(tmp_path) -> Path:
    write_photographs(tmp_path / "images", 6)
    return tmp_path / "images"


def request_for(images: Path, model: str = "pixels", **options) -> ExtractRequest:
    given = {"store": images.parent / "embeddings.zarr", "batch_size": None, "weights": "random:0", **options}
    return ExtractRequest(models=(model,), images=images, **given)


@pytest.fixture
def threads(monkeypatch):
    """Give a function that makes this another version of embedctl: its passes have so many threads."""
    return lambda n: monkeypatch.setattr(forward, "THREADS", n)


def of_store(store: Path, name: str) -> tuple[dict, dict[str, bytes]]:
    stored = EmbeddingStore.open(store)[name]
    return stored.provenance, {i: row.tobytes() for i, row in zip(stored.image_ids, stored.values, strict=True)}


def test_rows_added_under_another_number_of_threads_are_computed_on_the_recorded_one(images, threads, monkeypatch):
    used = []
    encoder = forward.Encoder.__call__
    monkeypatch.setattr(
        forward.Encoder, "__call__", lambda self, x: used.append((len(x), torch.get_num_threads())) or encoder(self, x)
    )
    threads(2)
    extract(request_for(images))
    threads(1)
    write_photographs(images, 3, first=6)
    extract(request_for(images))
    assert {n for size, n in used if size > 1} == {2}
    assert of_store(images.parent / "embeddings.zarr", "pixels")[0]["threads"] == 2


def test_an_embedding_that_is_new_takes_the_threads_of_the_one_beside_it(images, threads):
    threads(2)
    extract(request_for(images))
    threads(1)
    extract(ExtractRequest(models=("pixels", "hog"), images=images, store=images.parent / "embeddings.zarr"))
    assert of_store(images.parent / "embeddings.zarr", "hog")[0]["threads"] == 2


@pytest.mark.slow
def test_a_network_resumed_on_other_threads_gives_the_bytes_of_one_that_was_not(images, threads):
    """Of resnet50-tv at random weights, some float16 numbers differ between one thread and two."""
    rows = {}
    for n in (1, 2):
        threads(n)
        store = images.parent / f"{n}.zarr"
        extract(request_for(images, "resnet50-tv", store=store, dtype="float32"))
        rows[n] = of_store(store, "resnet50-tv")[1]
    if rows[1] == rows[2]:
        pytest.skip("on this machine the threads make no difference")
    write_photographs(images, 3, first=6)
    for n in (1, 2):
        shutil.copytree(images.parent / f"{n}.zarr", images.parent / f"{n}-other.zarr")
        for name, now in ((f"{n}.zarr", n), (f"{n}-other.zarr", 3 - n)):
            threads(now)
            extract(request_for(images, "resnet50-tv", store=images.parent / name, dtype="float32"))
        same, other = (of_store(images.parent / name, "resnet50-tv")[1] for name in (f"{n}.zarr", f"{n}-other.zarr"))
        assert len(same) == 9 and same == other


def recorded_on(store: Path, device: str) -> None:
    """Make a store say that its rows were computed on ``device``, with a receipt that fits."""
    opened = EmbeddingStore.open(store)
    (entry,) = opened.entries()
    facts, values = dict(entry.provenance), opened["pixels"].values
    with opened.lock():
        opened.remove(entry)
        new = opened.create(
            entry.name, entry.key, dim=entry.dim, dtype=entry.dtype, provenance=facts | {"device": device}
        )
        rows = torch.arange(len(values)).numpy()
        opened.write_block(0, {new.group: (rows, values)}, {})


def test_a_device_other_than_the_recorded_one_is_refused_and_auto_takes_the_recorded_one(images, monkeypatch):
    store = images.parent / "embeddings.zarr"
    extract(request_for(images))
    write_photographs(images, 3, first=6)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # so that auto would choose it
    with pytest.raises(StoreMismatch, match="computed on cpu, not cuda") as problem:
        extract(request_for(images, device="cuda"))
    assert problem.value.exit_code == 2 and "--device" in problem.value.hint
    assert extract(request_for(images)).written == 3
    monkeypatch.undo()
    recorded_on(store, "cuda")
    write_photographs(images, 1, first=9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NotHere):
        extract(request_for(images))
    with pytest.raises(StoreMismatch, match="computed on cuda, not cpu"):
        extract(request_for(images, device="cpu"))
    assert extract(request_for(images, device="cpu", overwrite=True)).written == 10


def test_the_folder_of_the_images_is_in_the_provenance_and_not_in_the_key(images):
    extract(request_for(images))
    facts = of_store(images.parent / "embeddings.zarr", "pixels")[0]
    assert facts["images"] == str(images) and "images" not in json.dumps(facts["recipe"])


@pytest.fixture
def small(tmp_path, monkeypatch):
    def write(dim: int = 512, resize: str = "bilinear"):
        monkeypatch.setattr(cards, "_added", [])
        registry.cache_clear()
        (tmp_path / "cards").mkdir()
        (tmp_path / "cards" / "small.toml").write_text(CARD.format(dim=dim, input=SMALL.replace("bilinear", resize)))
        add_cards(tmp_path / "cards")

    yield write
    monkeypatch.undo()
    registry.cache_clear()


@pytest.mark.parametrize("dim", [512, 511])
def test_a_table_that_is_wrong_about_the_width_of_its_encoder_is_refused_before_anything_is_written(small, images, dim):
    small(dim)
    words = ["extract", "--model", "small-resnet", "--weights", "random:0", "--images", str(images)]
    result = CliRunner().invoke(app, [*words, "--store", str(images.parent / "e.zarr")])
    assert (images.parent / "e.zarr").exists() == (dim == 512)
    assert result.exit_code == (0 if dim == 512 else 2), result.stderr
    assert dim == 512 or "gives 512 numbers per image, and its table says dim = 511" in result.stderr


@pytest.mark.parametrize(
    "words", [("pixels:nowhere",), ("resnet18-tv:layer1.cls", "--weights", "random:0")], ids=["layer", "pooling"]
)
def test_what_only_the_network_knows_to_be_wrong_leaves_no_store_and_no_images_behind(images, words):
    for store in ("new.zarr", "old.zarr"):
        if store == "old.zarr":
            extract(request_for(images, store=images.parent / store))
            write_photographs(images, 2, first=6)
        line = ["extract", "--model", *words, "--images", str(images), "--store", str(images.parent / store)]
        assert CliRunner().invoke(app, line).exit_code == 2
    assert not (images.parent / "new.zarr").exists()
    assert len(EmbeddingStore.open(images.parent / "old.zarr").image_ids) == 6


def test_a_network_gives_the_same_bytes_on_one_core_and_on_three(small, images, monkeypatch):
    small()
    rows = []
    for n in (1, 3):
        monkeypatch.setattr("pipelines.extract.engine.n_cores", lambda n=n: n)
        store = images.parent / f"{n}.zarr"
        extract(request_for(images, "small-resnet", store=store, batch_size=1))
        facts, found = of_store(store, "small-resnet")
        rows.append(found)
        assert facts["threads"] == 1
    assert len(rows[0]) == 6 and rows[0] == rows[1]


def decide(monkeypatch, form: str, first=lambda: None) -> None:
    """Let a probe find that this form pays; ``first`` is what happens meanwhile."""

    def choose(encoder, n_images) -> tuple[str, str]:
        first()
        return form, "as the test says"

    monkeypatch.setattr(forms, "_found", {})
    monkeypatch.setattr(forms, "choose_form", choose)


def forms_of(store: Path) -> dict[str, str]:
    return {str(entry.name): entry.provenance["form"] for entry in EmbeddingStore.open(store).entries()}


@pytest.mark.slow
def test_of_shards_that_begin_together_and_find_different_forms_the_first_to_write_decides(small, images, monkeypatch):
    small()
    store = images.parent / "embeddings.zarr"
    request = request_for(images, "small-resnet", dtype="float32", batch_size=2)

    def other() -> None:
        decide(monkeypatch, "folded")
        extract(replace(request, shard=Part(0, 2)))

    decide(monkeypatch, "plain", other)
    monkeypatch.setattr("pipelines.extract.survey.block_rows_for", lambda n: 3)
    monkeypatch.setattr("stores.image_rows.block_rows_for", lambda n: 3)
    assert extract(replace(request, shard=Part(1, 2))).written == 3
    decide(monkeypatch, "folded")
    alone = request_for(images, "small-resnet", dtype="float32", batch_size=2, store=images.parent / "alone.zarr")
    extract(alone)
    assert forms_of(store) == {"small-resnet": "folded"}
    assert of_store(store, "small-resnet")[1] == of_store(alone.store, "small-resnet")[1]


@pytest.mark.slow
def test_layers_asked_for_one_after_the_other_are_those_of_one_command_whatever_the_probe_finds(
    small, images, monkeypatch
):
    small()
    layers = [f"small-resnet:{layer}.gap" for layer in ("conv1", "layer1.0.conv1", "layer4")]
    decide(monkeypatch, "folded")
    together = request_for(images, dtype="float32", store=images.parent / "together.zarr")
    extract(replace(together, models=tuple(layers)))
    one_by_one = images.parent / "one-by-one.zarr"
    for layer in reversed(layers):
        extract(request_for(images, layer, dtype="float32", store=one_by_one))
        decide(monkeypatch, "plain")
    assert forms_of(one_by_one) == forms_of(together.store) == dict.fromkeys(layers, "folded")
    assert all(of_store(one_by_one, layer)[1] == of_store(together.store, layer)[1] for layer in layers)


@pytest.mark.slow
def test_layers_of_one_network_in_two_forms_are_gone_on_with_together(small, images, monkeypatch):
    small()
    stores = {form: images.parent / f"{form}.zarr" for form in ("plain", "folded")}
    names = {"plain": "small-resnet:layer4.gap", "folded": "small-resnet:layer1.gap"}
    for form, store in stores.items():
        decide(monkeypatch, form)
        extract(request_for(images, names[form], store=store, dtype="float32"))
    both = shutil.copytree(stores["plain"], images.parent / "both.zarr")
    merge(both, stores["folded"])
    write_photographs(images, 2, first=6)
    extract(replace(request_for(images, store=both, dtype="float32"), models=tuple(names.values())))
    assert set(forms_of(both).values()) == {"plain", "folded"}
    for form, store in stores.items():
        extract(request_for(images, names[form], store=store, dtype="float32"))
        assert of_store(both, names[form])[1] == of_store(store, names[form])[1]


@pytest.mark.slow
def test_a_network_whose_rows_are_exact_either_way_is_never_folded(small, images, monkeypatch):
    small(resize="opencv")
    decide(monkeypatch, "folded")
    extract(request_for(images, "small-resnet", dtype="float32"))
    assert list(forms_of(images.parent / "embeddings.zarr").values()) == ["plain"]
    assert extract(request_for(images, "small-resnet", dtype="float32", exact=True)).written == 0


@pytest.mark.slow
def test_a_network_goes_on_in_the_form_the_store_recorded_whatever_pays_by_now(small, images, monkeypatch):
    small()
    stores = {form: images.parent / f"{form}.zarr" for form in ("plain", "folded")}

    def run(form: str, **options) -> dict[str, bytes]:
        request = request_for(images, "small-resnet", store=stores[form], dtype="float32", **options)
        extract(request)
        facts, rows = of_store(stores[form], "small-resnet")
        assert facts["form"] == form
        return rows

    for form in stores:
        decide(monkeypatch, form)
        run(form)
    write_photographs(images, 3, first=6)
    decide(monkeypatch, "plain")
    folded = run("folded")
    assert len(folded) == 9 and folded != run("plain")
    decide(monkeypatch, "folded")
    assert run("folded", overwrite=True) == folded
    assert extract(request_for(images, "small-resnet", store=images.parent / "exact.zarr", exact=True)).written == 9
    assert of_store(images.parent / "exact.zarr", "small-resnet")[0]["form"] == "plain"


@pytest.mark.slow
def test_a_layer_that_is_overwritten_keeps_the_form_of_those_that_stay(small, images, monkeypatch):
    small()
    layers = [f"small-resnet:{layer}.gap" for layer in ("conv1", "layer4")]
    request = replace(request_for(images, dtype="float32"), models=tuple(layers))
    decide(monkeypatch, "folded")
    extract(request)
    before = [of_store(request.store, layer)[1] for layer in layers]
    decide(monkeypatch, "plain")
    assert extract(replace(request, models=(layers[0],), overwrite=True)).written == 6
    assert forms_of(request.store) == dict.fromkeys(layers, "folded")
    assert [of_store(request.store, layer)[1] for layer in layers] == before
    extract(replace(request, overwrite=True))
    assert forms_of(request.store) == dict.fromkeys(layers, "plain")


def recorded(name: str, request: ExtractRequest, **facts) -> Entry:
    """Return what a store would say of an embedding at random weights that was computed as told."""
    (target,) = choose_targets(replace(request, models=(name,), overwrite=False, device="auto"), ())
    known = {"encoder": target.spec.id, "weights": target.weights.label, "exact": False, "batch_size": 32, **facts}
    return Entry(target.name, target.key, 512, "float16", target.group, known, 6, 0)


def test_what_is_overwritten_takes_threads_device_and_form_of_what_stays_of_its_network(images):
    layers = ("resnet18-tv:layer1.gap", "resnet18-tv:layer2.gap")
    request = replace(request_for(images), models=layers[:1], overwrite=True)
    entries = [recorded(layer, request, threads=2, device="cpu", form="winograd") for layer in layers]

    def chosen(**changes) -> list[tuple[int, str, str]]:
        targets = choose_targets(replace(request, **changes), entries)
        return [(target.threads, target.device, target.form_at(target.device)) for target in targets]

    assert chosen() == chosen(device="cpu") == [(2, "cpu", "winograd")]
    assert chosen(models=layers) == [(0, "", "")] * 2
    assert chosen(device="cuda") == chosen(weights="random:1") == [(0, "", "")]
    entries.append(recorded("alexnet-tv:features.0.gap", request, threads=1, device="cuda", form="folded"))
    with pytest.raises(EmbedctlError, match="'resnet18-tv:layer2.gap' was computed on cpu, and 'alexnet-tv"):
        chosen(models=(layers[0], "alexnet-tv"))


def test_a_form_recorded_on_another_kind_of_device_is_not_taken_over(images):
    request = replace(request_for(images), models=("resnet18-tv:layer2.gap",))
    entries = [recorded("resnet18-tv:layer1.gap", request, threads=1, device="cpu", form="winograd")]
    (target,) = choose_targets(request, entries)
    assert (target.form_at("cpu"), target.form_at("cuda")) == ("winograd", "")
    (target,) = choose_targets(replace(request, device="cuda"), entries)
    assert target.form_at("cuda") == ""
    entries.append(recorded("resnet18-tv:layer3.gap", request, threads=1, device="cuda", form="folded"))
    (target,) = choose_targets(request, entries)
    assert (target.form_at("cpu"), target.form_at("cuda")) == ("winograd", "folded")


def test_a_form_that_a_network_does_not_have_is_not_taken(small):
    small()
    encoder = build(registry()["small-resnet"], weights="random:0", device="meta")
    with pytest.raises(ValueError, match="'winograd' is none of the forms of 'small-resnet': plain, folded"):
        encoder.take("winograd")
    assert encoder.form == "plain"
    with pytest.raises(StoreMismatch, match="records 'winograd' of 'small-resnet', which has no such form on meta"):
        forms.settle_form(encoder, "winograd", False, 2, SILENT)
