"""AligNet's public port: every tensor in its place, big_vision's arithmetic, OpenCV's pixels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import gelu, layer_norm, linear

from pipelines.encoders.alignet_family import AligNet
from pipelines.encoders.build import build
from pipelines.encoders.opencv_resize import resize
from pipelines.encoders.registry import find
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8}
ID = EmbeddingName("alignet-siglip2-b")


@pytest.fixture
def small():
    spec = find(ID.encoder)
    return replace(
        spec,
        model={**spec.model, **SMALL},
        preprocessing=replace(spec.preprocessing, size=32, resize_to=32),
    )


@pytest.fixture
def tensors():
    """A file as published, in small: all tensors random."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        name: tensor.shape for name, tensor in AligNet("vit_base_patch16_siglip_224", **SMALL).state_dict().items()
    }
    return {name: torch.empty(shape).normal_(0, 0.3, generator=generator) for name, shape in shapes.items()}


def by_big_vision(w, x, heads=3):
    """The image tower of big_vision (SigLIP): tanh GELU, epsilon 1e-6, attention pooling by a learned probe."""

    def norm(x, name):
        return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], 1e-6)

    def dense(x, name):
        return linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def attend(q, k, v):
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
        return ((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)

    def mlp(x, name):
        return dense(gelu(dense(x, f"{name}.fc1"), approximate="tanh"), f"{name}.fc2")

    patch = w["encoder.patch_embed.proj.weight"]
    x = torch.nn.functional.conv2d(x, patch, w["encoder.patch_embed.proj.bias"], stride=patch.shape[-1])
    x = x.flatten(2).mT + w["encoder.pos_embed"]
    for i in range(2):
        block = f"encoder.blocks.{i}"
        y = norm(x, f"{block}.norm1")
        x = x + dense(attend(*dense(y, f"{block}.attn.qkv").chunk(3, -1)), f"{block}.attn.proj")
        x = x + mlp(norm(x, f"{block}.norm2"), f"{block}.mlp")
    x = norm(x, "encoder.norm")
    pool = "encoder.attn_pool"
    probe = dense(w[f"{pool}.latent"].expand(len(x), -1, -1), f"{pool}.q")
    x = dense(attend(probe, *dense(x, f"{pool}.kv").chunk(2, -1)), f"{pool}.proj")
    x = x + mlp(norm(x, f"{pool}.norm"), f"{pool}.mlp")
    return x[:, 0]


def test_the_embedding_is_what_big_vision_computes(small, tensors, tmp_path):
    save_file(tensors, tmp_path / "alignet.safetensors")
    taps = [ID, EmbeddingName.parse(f"{ID}:triplet_head"), EmbeddingName.parse(f"{ID}:blocks.1.mean")]
    encoder = build(small, weights=str(tmp_path / "alignet.safetensors"), taps=taps)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    rows = encoder(x)
    pooled = by_big_vision(tensors, x)
    torch.testing.assert_close(rows[ID], pooled, atol=1e-5, rtol=1e-5)
    triplet = linear(pooled, tensors["triplet_head.weight"], tensors["triplet_head.bias"])
    torch.testing.assert_close(rows[taps[1]], triplet, atol=1e-5, rtol=1e-5)
    assert encoder.dims[taps[2]] == 24


@pytest.mark.parametrize(("name", "what"), [("triplet_head.bias", "1 missing"), ("extra", "1 left over")])
def test_a_file_that_is_not_exactly_the_port_is_a_named_error(small, tensors, tmp_path, name, what):
    tensors = {k: v for k, v in tensors.items() if k != name} | ({"extra": torch.zeros(1)} if name == "extra" else {})
    save_file(tensors, tmp_path / "alignet.safetensors")
    with pytest.raises(EmbedctlError, match=what):
        build(small, weights=str(tmp_path / "alignet.safetensors"))


def test_the_network_has_the_tensors_that_fill_the_published_file():
    spec = find(ID.encoder)
    with torch.device("meta"):
        shapes = [tensor.shape for tensor in AligNet(spec.model["name"]).state_dict().values()]
    numbers = 4 * sum(shape.numel() for shape in shapes)
    assert len(shapes) == 168
    assert 0 < spec.weights[0].bytes - numbers < 2**15  # what is left is the header


def test_pixels_are_those_of_opencv():
    """Printed by OpenCV 4.10, ``cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)``."""
    y, x, c = np.mgrid[:11, :13, :3]
    image = ((37 * y * y + 91 * x + 53 * c * x * y) % 256).astype(np.uint8)
    smaller, larger = resize(image, 4), resize(image, 16)
    assert smaller.dtype == np.float32
    red = [[136, 208, 254, 42], [145, 152, 100, 60], [138, 228, 136, 124], [20, 50, 93, 140]]
    green = [[0, 104, 218, 44], [65, 30, 57, 18], [7, 104, 170, 172], [104, 32, 227, 155]]
    np.testing.assert_allclose(smaller[..., 0], red, atol=1)
    np.testing.assert_allclose(larger[::5, ::5, 1], green, atol=1)
    assert abs(smaller.sum() - 6184) <= 2 and abs(larger.sum() - 94277) <= 8
