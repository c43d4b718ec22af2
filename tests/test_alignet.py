"""AligNet's SavedModels and public port: every tensor in its place, big_vision's arithmetic, OpenCV's pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import gelu, layer_norm, linear

from pipelines.encoders.alignet_family import AligNet
from pipelines.encoders.alignet_saved_model import VARIABLE, from_saved_model
from pipelines.encoders.build import build
from pipelines.encoders.opencv_resize import resize
from pipelines.encoders.registry import find
from pipelines.encoders.tensor_bundle import read_bundle
from stores.errors import EmbedctlError
from stores.names import EmbeddingName
from tests.saved_models import in_flaxs_order, write_saved_model

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


REFERENCE = Path(__file__).parent / "references" / "alignet"


def test_variables_that_tensorflow_wrote_are_read_as_they_are():
    """Written by TensorFlow 2.15: ``tests/references/alignet/make_bundle.py``."""
    found = read_bundle(
        (REFERENCE / "variables.index").read_bytes(),
        lambda i, n: (REFERENCE / f"variables.data-{i:05}-of-{n:05}").read_bytes(),
    )
    draw = np.random.RandomState(0)
    shapes = [(3,), (2, 3), (1, 1, 4), (), (2, 2, 3, 1), (3,), (4,), (2,), (3, 2), (1,), (2,), (64, 5)]
    assert len(found) == len(shapes)  # the counter of steps is none of them
    for number, shape in enumerate(shapes):
        expected = np.float32(draw.standard_normal(shape))
        np.testing.assert_array_equal(found[f"variables/{number}/.ATTRIBUTES/VARIABLE_VALUE"], expected)


INDEX, DATA = "variables.index", "variables.data-00000-of-00001"


@pytest.mark.parametrize(("file", "at"), [(INDEX, 100), (INDEX, 700), (INDEX, -3), (DATA, 200), (DATA, 1400)])
def test_a_bundle_with_a_bit_turned_is_noticed(file, at):
    files = {name: bytearray((REFERENCE / name).read_bytes()) for name in (INDEX, DATA)}
    files[file][at] ^= 1
    with pytest.raises(ValueError, match="damaged|cut off|no table"):
        read_bundle(bytes(files[INDEX]), lambda i, n: bytes(files[DATA]))


TWELVE = {**SMALL, "depth": 12, "embed_dim": 12}  # blocks 10 and 11 are sorted before block 2


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """A network of twelve blocks: its file in the port's form, its SavedModel, and the arrays in it."""
    spec = find("alignet-siglip-b")
    spec = replace(
        spec, model={**spec.model, **TWELVE}, preprocessing=replace(spec.preprocessing, size=32, resize_to=32)
    )
    generator = torch.Generator().manual_seed(1)
    like = AligNet("vit_base_patch16_siglip_224", **TWELVE).state_dict()
    tensors = {name: torch.empty(t.shape).normal_(0, 0.3, generator=generator) for name, t in like.items()}
    folder = tmp_path_factory.mktemp("alignet")
    save_file(tensors, folder / "port.safetensors")
    arrays = in_flaxs_order(tensors, n_blocks=12, n_heads=3)
    return spec, folder / "port.safetensors", write_saved_model(folder / "SigLIP-B-alignet.tar.gz", arrays), arrays


def test_a_saved_model_is_the_network_of_its_port(twelve):
    spec, port, packed, arrays = twelve
    assert len(arrays) == 218  # as many as the port's authors counted
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    taps = [EmbeddingName(spec.id), EmbeddingName(spec.id, "triplet_head"), EmbeddingName(spec.id, "blocks.10", "mean")]
    (one, two, three), *others = (
        tuple(build(spec, weights=str(file), taps=taps)(x).values())
        for file in (port, packed, packed.parent / "SigLIP-B-alignet")  # the last is what it unpacks to
    )
    assert all(map(torch.equal, (one, two, three) * 2, (row for rows in others for row in rows)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda a: [a[2], a[1], a[0], *a[3:]], r"2 misshapen \(model/_Model_0/MAPHead_0/LayerNorm_0/bias \(48,\), not"),
        (lambda a: [*a, a[0]], r"1 left over \(variables/218/"),
        (lambda a: a[:-4], r"4 missing \(i1k_head/"),
    ],
)
def test_a_saved_model_of_another_network_is_a_named_error(twelve, change, what):
    spec, *_, arrays = twelve
    with torch.device("meta"):
        module = AligNet(spec.model["name"], **TWELVE)
    with pytest.raises(EmbedctlError, match=what):
        from_saved_model({VARIABLE.format(i): array for i, array in enumerate(change(arrays))}, module, "net.tar.gz")


@pytest.mark.parametrize("damage", ["cut", "page", "empty"])
def test_a_file_that_is_no_saved_model_is_a_named_error(twelve, tmp_path, damage):
    spec, _, packed, _ = twelve
    path, whole = tmp_path / "net.tar.gz", packed.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "page": b"<html>404</html>", "empty": b""}[damage])
    with pytest.raises(EmbedctlError, match="is no whole SavedModel") as problem:
        build(spec, weights=str(path))
    assert problem.value.exit_code == 2 and "\n" not in problem.value.what


def test_each_network_stands_between_its_base_and_its_control():
    for id_ in ("alignet-siglip-b", "alignet-siglip2-b"):
        spec = find(id_)
        assert (spec.matched_base, spec.control) == (f"{id_}-base", f"{id_}-untransformed")
        control = find(spec.control)
        assert (control.preprocessing, control.model, control.tap) == (spec.preprocessing, spec.model, spec.tap)
        assert spec.contaminated and not control.contaminated
