"""Several layers, poolings and views at once are the bytes of one at a time, in every family."""

from dataclasses import replace

import pytest

from pipelines.encoders import dreamsim_family
from pipelines.encoders import registry as cards
from pipelines.encoders.build import Encoder
from pipelines.encoders.registry import add_cards, registry
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore
from tests.photos import write_photographs

SQUARE = '{ resize = "bicubic", fit = "squash", resize_to = 32, size = 32, norm = "imagenet" }'
TABLES = f"""
[small-vit]
family = "timm"
tap = "norm"
pooling = "cls"
dim = 48
input = {SQUARE}
[small-vit.model]
name = "vit_base_patch16_224.augreg_in1k"
img_size = 32
patch_size = 8
depth = 2
embed_dim = 48
num_heads = 3

[small-clip]
family = "open_clip"
dim = 512
input = {SQUARE}
[small-clip.model]
name = "ViT-B-32-quickgelu"
vision_cfg = {{ image_size = 32, width = 64, head_width = 32, patch_size = 8, layers = 2 }}
text_cfg = {{ context_length = 77, vocab_size = 100, width = 32, heads = 1, layers = 1 }}

[small-dreamsim]
family = "dreamsim"
model = {{ branches = ["clip_vitb32"], adapter = "clip_vitb32_single_lora", rank = 4, alpha = 8.0 }}
dim = 512
input = {SQUARE}

[small-ensemble]
family = "dreamsim"
model = {{ branches = ["dino_vitb16", "clip_vitb16"], adapter = "ensemble_lora", rank = 4, alpha = 8.0 }}
dim = 560
input = {SQUARE}
"""
SMALL_TRUNK = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8}

ASKED = {
    "small-vit": ("blocks.0.cls+mean", "blocks.0.tokens@grey", "blocks.1@noise-20", "blocks.0.cls+mean@grey", ""),
    "resnet18-tv": ("layer1.gap", "layer1.tokens@grey", "layer3@noise-20", "layer1.gap@grey", ""),
    "small-clip": ("blocks.0.mean", "blocks.0.tokens@grey", "ln_post@noise-20", "blocks.0.mean@grey", ""),
    "small-dreamsim": ("blocks.0.mean", "blocks.0.flatten@grey", "norm@noise-20", "blocks.0.mean@grey", ""),
    "small-ensemble": ("dino_vitb16.blocks.0.mean", "clip_vitb16.blocks.1.cls@grey", "@noise-20", "@grey", ""),
    "hog": ("output", "output.flatten@grey", "@noise-20", "@grey", ""),
}


def named(encoder: str, rest: str) -> str:
    return f"{encoder}{'' if not rest or rest.startswith('@') else ':'}{rest}"


@pytest.fixture(autouse=True)
def small_networks(tmp_path, monkeypatch):
    trunks = {
        name: replace(trunk, options={**trunk.options, **SMALL_TRUNK}) for name, trunk in dreamsim_family.TRUNKS.items()
    }
    monkeypatch.setattr(dreamsim_family, "TRUNKS", trunks)
    monkeypatch.setattr(cards, "_added", [])
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "small.toml").write_text(TABLES)
    add_cards(tmp_path / "cards")
    yield
    monkeypatch.undo()
    registry.cache_clear()


@pytest.mark.parametrize(
    ("exact", "encoder"),
    [
        pytest.param(exact, encoder, marks=pytest.mark.slow if exact or encoder == "resnet18-tv" else ())
        for exact in (False, True)
        for encoder in ASKED
    ],
)
def test_everything_at_once_gives_the_bytes_of_one_at_a_time(encoder, exact, tmp_path, monkeypatch):
    write_photographs(tmp_path / "images", 6, first=2)
    request = ExtractRequest(models=(), images=tmp_path / "images", weights="random:7", batch_size=4, exact=exact)
    names = tuple(named(encoder, rest) for rest in ASKED[encoder])
    n_passes = []
    plain = Encoder.__call__
    monkeypatch.setattr(Encoder, "__call__", lambda self, x: n_passes.append(len(x)) or plain(self, x))
    extract(replace(request, models=names, store=tmp_path / "together.zarr"))
    # One image tells shapes, two at a time which form of the network is faster; then two batches of three views.
    assert [n for n in n_passes if n > 2] == [4] * 6
    together = EmbeddingStore.open(tmp_path / "together.zarr")
    for number, name in enumerate(names):
        store = tmp_path / f"{number}.zarr"
        extract(replace(request, models=(name,), store=store))
        alone = EmbeddingStore.open(store)[name]
        assert alone.key == together[name].key
        assert alone.image_ids == together[name].image_ids and len(alone) == 6
        assert alone.values.tobytes() == together[name].values.tobytes(), name


@pytest.mark.slow
def test_families_together_give_the_bytes_of_one_at_a_time(tmp_path):
    write_photographs(tmp_path / "images", 6, first=2)
    request = ExtractRequest(models=(), images=tmp_path / "images", weights="random:7", batch_size=4)
    names = tuple(named(encoder, rest) for encoder, asked in ASKED.items() for rest in asked[:3])
    extract(replace(request, models=names, store=tmp_path / "together.zarr"))
    together = EmbeddingStore.open(tmp_path / "together.zarr")
    for number, encoder in enumerate(ASKED):
        mine = tuple(name for name in names if name.startswith(encoder))
        extract(replace(request, models=mine[::-1], store=tmp_path / f"{number}.zarr"))
        alone = EmbeddingStore.open(tmp_path / f"{number}.zarr")
        for name in mine:
            assert alone[name].values.tobytes() == together[name].values.tobytes(), name
