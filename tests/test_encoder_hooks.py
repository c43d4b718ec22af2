"""Layers of every family, under every pooling, are what a hook placed by hand on the network sees."""

from dataclasses import dataclass, replace

import pytest
import torch

from pipelines.encoders import dreamsim_family
from pipelines.encoders.build import build
from pipelines.encoders.registry import EncoderSpec, find
from stores.errors import EmbedctlError, UnknownName
from stores.names import POOLINGS, EmbeddingName

TEXT = {"context_length": 77, "vocab_size": 100, "width": 32, "heads": 1, "layers": 1}
TINY_VIT = {"depth": 2, "embed_dim": 64, "num_heads": 2}
VECTOR = None


@dataclass(frozen=True)
class Case:
    """An encoder made small, and where each of its layers lies in the network.

    ``layers``: from the name of a layer to the name of the module, the number of tokens before the first patch (None
    for a vector, "map" for a map), and how many axes to swap before it looks like any other.
    """

    id: str
    model: dict
    layers: dict[str, tuple[str, int | str | None]]
    has_cls: bool = True
    turn: tuple[int, ...] = ()
    small_trunk: bool = False

    @property
    def spec(self) -> EncoderSpec:
        spec = find(self.id)
        return replace(spec, model={**spec.model, **self.model})


CASES = [
    Case(
        "vitb16-in1k",
        TINY_VIT,
        {"blocks.0": ("blocks.0", 1), "blocks.1": ("blocks.1", 1), "norm": ("norm", 1), "output": ("", VECTOR)},
    ),
    Case(
        "dinov3-vitb16",
        {**TINY_VIT, "num_heads": 1},
        {"blocks.0": ("blocks.0", 5), "blocks.1": ("blocks.1", 5), "norm": ("norm", 5)},
    ),
    Case("beitv2-b16", TINY_VIT, {"blocks.1": ("blocks.1", 1), "fc_norm": ("fc_norm", VECTOR)}),
    Case("aimv2-l14", TINY_VIT, {"blocks.0": ("blocks.0", 0), "norm": ("norm", 0)}, has_cls=False),
    Case(
        "convnext-tiny",
        {"depths": (1, 1, 1, 1), "dims": (16, 32, 48, 64)},
        {"stages.1": ("stages.1", "map"), "stages.3": ("stages.3", "map"), "output": ("", VECTOR)},
    ),
    Case("tf-efficientnet-b0", {}, {"blocks.2": ("blocks.2", "map"), "blocks.6": ("blocks.6", "map")}),
    Case("levit-128", {}, {"stages.0": ("stages.0", 0), "stages.2": ("stages.2", 0)}, has_cls=False),
    Case("resnet50-a1", {"name": "resnet18.a1_in1k"}, {"layer2": ("layer2", "map"), "layer4": ("layer4", "map")}),
    Case(
        "maxvit-tiny",
        {"depths": (1, 1, 1, 1), "embed_dim": (32, 32, 32, 32), "stem_width": 32},
        {"stages.0": ("stages.0", "map"), "stages.3": ("stages.3", "map")},
    ),
    Case(
        "swin-b",
        {"depths": (1, 1, 1, 1), "embed_dim": 32, "num_heads": (1, 2, 4, 8)},
        {"layers.1": ("layers.1", "map"), "norm": ("norm", "map")},
        turn=(0, 3, 1, 2),
    ),
    Case("dinov2-vitb14", TINY_VIT, {"blocks.0": ("blocks.0", 1), "norm": ("norm", 1)}),
    Case("glocal-dino-vitb16-base", TINY_VIT, {"blocks.0": ("blocks.0", 1), "norm": ("norm", 1)}),
    Case(
        "clip-vitb32",
        {"vision_cfg": {"image_size": 224, "width": 64, "patch_size": 32, "layers": 2}, "text_cfg": TEXT},
        {
            "blocks.0": ("transformer.resblocks.0", 1),
            "blocks.1": ("transformer.resblocks.1", 1),
            "ln_post": ("ln_post", 1),
            "output": ("", VECTOR),
        },
    ),
    Case(
        "clip-rn50",
        {"vision_cfg": {"image_size": 224, "width": 32, "layers": (1, 1, 1, 1)}, "text_cfg": TEXT},
        {"layer1": ("layer1", "map"), "layer4": ("layer4", "map"), "attnpool": ("attnpool", VECTOR)},
    ),
    Case(
        "siglip-vitb16",
        {
            "vision_cfg": {
                "image_size": 224,
                "timm_model_name": "vit_tiny_patch16_224",
                "timm_pool": "",
                "timm_proj": "linear",
            },
            "text_cfg": TEXT,
        },
        {"blocks.3": ("trunk.blocks.3", 1), "norm": ("trunk.norm", 1), "output": ("", VECTOR)},
    ),
    Case("resnet18-tv", {}, {"layer2": ("layer2", "map"), "avgpool": ("avgpool", "map"), "output": ("", VECTOR)}),
    Case("mobilenetv3-small-tv", {}, {"features.5": ("features.5", "map"), "classifier.0": ("classifier.0", VECTOR)}),
    Case(
        "dreamsim-clip-vitb32",
        {},
        {"blocks.1": ("blocks.1", 1), "norm": ("norm", 1), "output": ("", VECTOR)},
        small_trunk=True,
    ),
    Case(
        "dreamsim-ensemble",
        {},
        {
            "dino_vitb16.blocks.1": ("dino_vitb16.blocks.1", 1),
            "open_clip_vitb16.blocks.0": ("open_clip_vitb16.blocks.0", 1),
        },
        small_trunk=True,
    ),
    Case("harmonized-resnet50v2", {}, {"layer1": ("layer1", "map"), "norm": ("norm", "map"), "output": ("", VECTOR)}),
    Case("harmonized-vit", TINY_VIT, {"blocks.1": ("blocks.1", 1), "norm": ("norm", 1)}),
    Case(
        "alignet-siglip2-b",
        TINY_VIT,
        {
            "blocks.0": ("encoder.blocks.0", 0),
            "norm": ("encoder.norm", 0),
            "attn_pool": ("encoder.attn_pool", VECTOR),
            "triplet_head": ("triplet_head", VECTOR),
        },
        has_cls=False,
    ),
    Case("vonenet-resnet50", {}, {"vone_block": ("vone_block", "map"), "layer3": ("model.layer3", "map")}),
    Case("hog", {}, {"output": ("", VECTOR)}),
]

SMALL_TRUNK = {"embed_dim": 48, "depth": 2, "num_heads": 3}


def by_hand(x: torch.Tensor, pooling: str, prefix: int | str | None) -> torch.Tensor:
    if pooling in ("", "flatten"):
        return x.reshape(len(x), -1)
    if prefix == "map":
        n, dim = x.shape[:2]
        return x.reshape(n, dim, -1).transpose(1, 2).reshape(n, -1) if pooling == "tokens" else x.mean((2, 3))
    cls, mean = x[:, 0], x[:, prefix:].mean(1)
    return {"cls": cls, "mean": mean, "gap": mean, "cls+mean": torch.cat([cls, mean], 1), "tokens": x.flatten(1)}[
        pooling
    ]


def possible(prefix: int | str | None, has_cls: bool) -> tuple[str, ...]:
    if prefix is VECTOR:
        return ("", "flatten")
    if prefix == "map" or not has_cls:
        return ("mean", "gap", "tokens", "flatten")
    return POOLINGS


CORNET = Case("cornet-s", {}, {"V1": ("V1", "map"), "IT": ("IT", "map"), "output": ("", VECTOR)})


@pytest.mark.parametrize("case", [*CASES, pytest.param(CORNET, marks=pytest.mark.slow)], ids=lambda case: case.id)
def test_layers_and_poolings_are_those_of_hooks_placed_by_hand(case, monkeypatch):
    if case.small_trunk:
        trunks = {
            name: replace(trunk, options={**trunk.options, **SMALL_TRUNK})
            for name, trunk in dreamsim_family.TRUNKS.items()
        }
        monkeypatch.setattr(dreamsim_family, "TRUNKS", trunks)
    spec = case.spec
    taps = {
        EmbeddingName(spec.id, layer, pooling): (layer, pooling, prefix)
        for layer, (_, prefix) in case.layers.items()
        for pooling in possible(prefix, case.has_cls)
    }
    conventional = EmbeddingName(spec.id)
    encoder = build(spec, weights="random:5", taps=[*taps, *([] if case.small_trunk else [conventional])])
    seen = {}
    for layer, (path, _) in case.layers.items():
        encoder._module.get_submodule(path).register_forward_hook(
            lambda m, i, out, layer=layer: seen.update({layer: (out[0] if isinstance(out, tuple) else out).clone()})
        )
    size = spec.preprocessing.size
    rows = encoder(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
    for tap, (layer, pooling, prefix) in taps.items():
        x = seen[layer].permute(case.turn) if case.turn else seen[layer]
        torch.testing.assert_close(rows[tap], by_hand(x, pooling, prefix), msg=lambda why, tap=tap: f"{tap}: {why}")
        assert rows[tap].shape[1] == encoder.dims[tap]
        if pooling == "tokens":
            n_tokens, dim = encoder.token_shapes[tap]
            assert n_tokens * dim == encoder.dims[tap]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_pooling_that_a_layer_does_not_have_is_refused_with_those_it_has(case):
    for layer, (_, prefix) in case.layers.items():
        if case.small_trunk or prefix in (0, 1, 5) and case.has_cls:
            continue
        tap = EmbeddingName(case.id, layer, "cls")
        with pytest.raises(EmbedctlError, match=f"'{case.id}:{layer}.cls'.* has no pooling 'cls'") as problem:
            build(case.spec, weights="random:0", taps=[tap], device="meta")
        assert problem.value.exit_code == 2
        wanted = "it has flatten, or none at all" if prefix is VECTOR else "it has mean, tokens, gap, flatten"
        assert problem.value.hint == wanted


@pytest.mark.parametrize(
    ("text", "what", "hint"),
    [
        ("resnet18-tv:layer9", "has no layer 'layer9'", "it has layer1, layer2, layer3, layer4, avgpool, output"),
        ("resnet18-tv:layer1.avg", "has no pooling or layer 'avg'", f"poolings are {', '.join(POOLINGS)}"),
        ("clip-vitb32:blocks.12", "has no layer 'blocks.12'", "it has blocks.0, blocks.1,"),
        ("alignet-siglip2-b:i1k_head", "has no layer 'i1k_head'", "it has blocks.0, blocks.1,"),
        ("ecoset-inception:AuxLogits", "does not pass through this layer", "it has Mixed_5b, Mixed_5c,"),
    ],
)
def test_a_layer_that_is_not_there_is_named_with_those_that_are(text, what, hint):
    tap = EmbeddingName.parse(text)
    with pytest.raises(EmbedctlError, match=what) as problem:
        build(find(tap.encoder), weights="random:0", taps=[tap], device="meta")
    assert problem.value.exit_code == 2 and problem.value.hint.startswith(hint)
    assert isinstance(problem.value, UnknownName) or "pass" in what
