"""Encoders compute what their library computes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.encoders.build import build, resolve_layers
from pipelines.encoders.pooling import pool
from pipelines.encoders.registry import find
from pipelines.encoders.torchvision_import import torchvision
from stores.errors import EmbedctlError, NotHere, UnknownName
from stores.names import EmbeddingName
from tests.plain_loop import by_the_library


def name(text: str) -> EmbeddingName:
    return EmbeddingName.parse(text)


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    """Non-square images with structure at every scale."""
    rng = np.random.default_rng(0)
    sizes = [(500, 375), (301, 402), (260, 777)]
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).resize((w, h)) for w, h in sizes]


TOWER = {"image_size": 224, "width": 768, "patch_size": 32, "layers": 2}
TEXT = {"context_length": 77, "vocab_size": 100, "width": 64, "heads": 1, "layers": 1}


@pytest.mark.parametrize(
    ("id_", "arguments"),
    [
        pytest.param("resnet50-tv", {}, id="resnet50-tv"),
        pytest.param("vitb16-in1k", {"depth": 2}, id="vitb16-in1k, two blocks"),
        pytest.param("clip-vitb32", {"vision_cfg": TOWER, "text_cfg": TEXT}, id="clip-vitb32, two blocks"),
        pytest.param("vitb16-in1k", {}, id="vitb16-in1k", marks=pytest.mark.slow),
        pytest.param("clip-vitb32", {}, id="clip-vitb32", marks=pytest.mark.slow),
    ],
)
def test_random_weights_give_what_the_library_gives_on_the_same_images(id_, arguments, photographs):
    model, transform = by_the_library(id_, seed=7, **arguments)
    spec = find(id_)
    encoder = build(replace(spec, model={**spec.model, **arguments}), weights="random:7")
    ours = encoder.exact_transform()
    for image in photographs:
        assert torch.equal(ours(image), transform(image))
    with torch.no_grad():
        expected = torch.cat([model(transform(image)[None]) for image in photographs])
    rows = encoder(torch.stack([ours(image) for image in photographs]))[name(id_)]
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, expected, atol=1e-5, rtol=1e-5)
    assert encoder.weights == "random:7"


def test_drawing_weights_leaves_the_callers_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    build(find("resnet18-tv"), weights="random:7")
    assert torch.equal(torch.rand(3), expected)


def test_all_taps_come_out_of_one_forward_pass_and_equal_hooks_placed_by_hand():
    taps = [name(f"resnet18-tv{rest}") for rest in ("", ":layer2", ":layer2.flatten", ":layer3.1", ":layer4.tokens")]
    encoder = build(find("resnet18-tv"), weights="random:1", taps=taps)
    torch.manual_seed(1)
    model = torchvision.models.resnet18(weights=None).eval()
    seen, calls = {}, []
    for layer in ("layer2", "layer3.1", "layer4", "avgpool"):
        model.get_submodule(layer).register_forward_hook(lambda m, i, o, layer=layer: seen.update({layer: o.clone()}))
    encoder._module.register_forward_hook(lambda *_: calls.append(1))
    x = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        model(x)
    rows = encoder(x)
    assert list(rows) == taps and len(calls) == 1
    torch.testing.assert_close(rows[taps[0]], seen["avgpool"].flatten(1))
    torch.testing.assert_close(rows[taps[1]], seen["layer2"].mean((2, 3)))
    torch.testing.assert_close(rows[taps[2]], seen["layer2"].flatten(1))
    torch.testing.assert_close(rows[taps[3]], seen["layer3.1"].mean((2, 3)))
    torch.testing.assert_close(rows[taps[4]].view(2, 49, 512), seen["layer4"].flatten(2).transpose(1, 2))
    assert encoder.token_shapes == {taps[4]: (49, 512)}
    assert encoder.dims[taps[2]] == 128 * 28 * 28


def test_a_layer_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(UnknownName, match="'resnet18-tv' has no layer 'layer9'") as problem:
        build(find("resnet18-tv"), weights="random:0", taps=[name("resnet18-tv:layer9")])
    assert problem.value.hint == "it has layer1, layer2, layer3, layer4, avgpool, output"


def test_depth_names_the_block_after_which_that_fraction_is_done():
    layers = [tap.layer for tap in resolve_layers(find("clip-vitb32"), ["depth:0.25,0.5,1", "blocks.2", "ln_post"])]
    assert layers == ["blocks.2", "blocks.5", "blocks.11", "ln_post"]
    assert str(resolve_layers(find("vitb16-in1k"), ["depth:0.7.mean"])[0]) == "vitb16-in1k:blocks.8.mean"


@pytest.mark.parametrize("depth", ["depth:0", "depth:1.5", "depth:half"])
def test_a_depth_outside_the_network_is_refused(depth):
    with pytest.raises(EmbedctlError, match="is no depth"):
        resolve_layers(find("resnet18-tv"), [depth])


def test_pooling_leaves_prefix_tokens_out_of_the_mean_but_keeps_them_as_tokens():
    x = torch.rand(2, 6, 4)
    assert torch.equal(pool(x, "mean", 2)[0], x[:, 2:].mean(1))
    assert torch.equal(pool(x, "cls+mean", 2)[0], torch.cat([x[:, 0], x[:, 2:].mean(1)], 1))
    assert pool(x, "tokens", 2)[1] == (6, 4)


@pytest.mark.parametrize(("shape", "pooling"), [((2, 5), "cls"), ((2, 5, 4), "cls"), ((2, 5, 4, 4), "cls+mean")])
def test_a_pooling_that_makes_no_sense_is_refused(shape, pooling):
    with pytest.raises(EmbedctlError):
        pool(torch.rand(shape), pooling)


def test_weights_that_are_not_here_end_with_the_line_that_fetches_them(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(NotHere) as problem:
        build(find("resnet18-tv"), offline=True)
    assert "embedctl models pull resnet18-tv" in problem.value.hint and problem.value.exit_code == 6
