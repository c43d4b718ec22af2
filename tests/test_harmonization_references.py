"""Harmonised networks compute what Keras computes, and every known way to get them wrong is noticed.

Everything is compared from the image file on: decoding, resizing, normalising, the network, the tap. References and
the way they were made: ``tests/references/harmonization``.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from pipelines.encoders import harmonization_resnet50v2
from pipelines.encoders.build import Encoder
from pipelines.encoders.registry import find
from pipelines.extract.extract import extract
from pipelines.extract.request import ExtractRequest
from stores.embeddings import EmbeddingStore
from stores.names import EmbeddingName
from tests.harmonization_reference import HARMONISED, REFERENCES, build_from_recipe, misfit, probes
from tests.references.harmonization import recipe

# In standard deviations of the embedding. Measured: at most 5e-6; the issue asks for 1e-3.
TOLERANCE = 5e-5

LIGHT = ("harmonized-levit", "harmonized-efficientnet-b0")  # a second each: also in the default suite


@pytest.fixture(
    scope="module", params=[id_ if id_ in LIGHT else pytest.param(id_, marks=pytest.mark.slow) for id_ in HARMONISED]
)
def harmonised(request, tmp_path_factory) -> tuple[Encoder, torch.Tensor]:
    """One network at a time, and the probes."""
    spec, folder = find(request.param), tmp_path_factory.mktemp("harmonised")
    return build_from_recipe(spec, folder), probes(spec, folder)


def misfits(encoder: Encoder, images: torch.Tensor) -> list[float]:
    """Of the embedding and of the hidden layer."""
    reference = REFERENCES[encoder.spec.model["name"]]
    embedding, hidden = encoder(images).values()
    return [misfit(embedding, reference["embedding"]), misfit(hidden, reference["hidden_embedding"])]


def test_embedding_and_hidden_layer_of_image_files_equal_keras(harmonised):
    encoder, images = harmonised
    assert max(misfits(encoder, images)) < TOLERANCE
    assert encoder.dims[EmbeddingName(encoder.spec.id)] == encoder.spec.dim
    assert encoder.weights.startswith("sha256:")


@pytest.mark.parametrize("model", ["harmonized-levit", pytest.param("harmonized-vit", marks=pytest.mark.slow)])
def test_extract_stores_what_keras_computes(model, tmp_path):
    """``embedctl extract --model harmonized-vit --weights FILE.h5``."""
    images = tmp_path / "images"
    images.mkdir()
    recipe.write_probes(images)
    path = recipe.write_h5(tmp_path / "weights.h5", find(model).model["name"], whole_model=True)
    store = tmp_path / "embeddings.zarr"
    extract(
        ExtractRequest(models=(model,), images=images, store=store, weights=str(path), dtype="float32", batch_size=3)
    )
    path.unlink()
    stored = EmbeddingStore.open(store)[model]
    assert stored.image_ids == ["probe0.png", "probe1.png", "probe2.jpg"]
    rows = torch.from_numpy(np.array(stored.values))
    assert misfit(rows, REFERENCES[find(model).model["name"]]["embedding"]) < TOLERANCE
    assert not EmbeddingStore.open(store).entries()[0].provenance["weights"].startswith("random")


# ---- mistakes ----------------------------------------------------------------------------------------------------
# Each does to a loaded network what the mistake would have done while loading or building it.

Mistake = Callable[[nn.Module, pytest.MonkeyPatch], None]


def epsilon(kind: type[nn.Module], eps: float) -> Mistake:
    def make(module: nn.Module, patch: pytest.MonkeyPatch) -> None:
        norms = [m for m in module.modules() if isinstance(m, kind)]
        assert norms
        for norm in norms:
            patch.setattr(norm, "eps", eps)

    return make


def gelu(approximate: str) -> Mistake:
    def make(module: nn.Module, patch: pytest.MonkeyPatch) -> None:
        acts = [m for m in module.modules() if type(m).__name__ in ("GELU", "GELUTanh")]
        assert acts
        for act in acts:
            patch.setattr(act, "forward", nn.GELU(approximate=approximate).forward)

    return make


def tensors(ending: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Mistake:
    def make(module: nn.Module, patch: pytest.MonkeyPatch) -> None:
        changed = [(name, p) for name, p in module.named_parameters() if name.endswith(ending)]
        assert changed
        for _, parameter in changed:
            patch.setattr(parameter, "data", change(parameter.data).contiguous())
        for keeper in (m for m in module.modules() if hasattr(m, "attention_bias_cache")):
            patch.setattr(keeper, "attention_bias_cache", {})

    return make


def without(name: str) -> Mistake:
    """Replace a module by nothing."""

    def make(module: nn.Module, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(module.get_submodule(name), "forward", lambda x: x)

    return make


def per_third(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda qkv: torch.cat([change(part) for part in qkv.chunk(3)])


def keys_first(qkv: torch.Tensor) -> torch.Tensor:
    q, k, v = qkv.chunk(3)
    return torch.cat([k, q, v])


def rows_unpermuted(fc1: torch.Tensor) -> torch.Tensor:
    return fc1.view(-1, 512, 49).transpose(1, 2).reshape(fc1.shape)


def symmetric_padding(module: nn.Module, patch: pytest.MonkeyPatch) -> None:
    """As plain ``efficientnet_b0`` pads."""
    same = [m for m in module.modules() if type(m).__name__ == "Conv2dSame"]
    assert same
    for conv in same:
        patch.setattr(conv, "padding", ((conv.kernel_size[0] - 1) // 2,) * 2)
        patch.setattr(conv, "forward", lambda x, conv=conv: nn.Conv2d.forward(conv, x))


def stride_first(module: nn.Module, patch: pytest.MonkeyPatch) -> None:
    """As ``resnetv2_50`` strides: at the start of stages two to four."""
    for before, after in zip(
        (module.layer1, module.layer2, module.layer3), (module.layer2, module.layer3, module.layer4), strict=True
    ):
        patch.setattr(before[-1], "stride", 1)
        patch.setattr(before[-1].conv2, "stride", (1, 1))
        patch.setattr(after[0].conv0, "stride", (2, 2))
        patch.setattr(after[0].conv2, "stride", (2, 2))


def padding_that_never_wins(module: nn.Module, patch: pytest.MonkeyPatch) -> None:
    """As torch's own max-pooling pads."""
    never = float("-inf")
    patch.setattr(harmonization_resnet50v2, "pad", lambda x, by: nn.functional.pad(x, by, value=never))


MISTAKES: dict[str, dict[str, Mistake]] = {
    "harmonized-vit": {
        "layer norm epsilon 1e-5": epsilon(nn.LayerNorm, 1e-5),
        "layer norm epsilon 1e-3": epsilon(nn.LayerNorm, 1e-3),
        "tanh GELU": gelu("tanh"),
        "rows and columns of the patches swapped": tensors("patch_embed.proj.weight", lambda w: w.transpose(2, 3)),
        "order key, query, value": tensors("qkv.weight", keys_first),
        "query, key, value not transposed": tensors("qkv.weight", per_third(lambda w: w.T)),
        "output projection not transposed": tensors("attn.proj.weight", lambda w: w.T),
        "CLS before the final norm": without("norm"),
    },
    "harmonized-resnet50v2": {
        "batch norm epsilon 1e-3": epsilon(nn.BatchNorm2d, 1e-3),
        "stride at the start of a stage": stride_first,
        "max-pooling padded with minus infinity": padding_that_never_wins,
        "no biases": tensors(".conv3.bias", torch.zeros_like),
        "rows and columns swapped": tensors(".conv2.weight", lambda w: w.transpose(2, 3)),
        "before the final norm": without("norm"),
    },
    "harmonized-vgg16": {
        "fc1 rows not permuted": tensors("classifier.0.weight", rows_unpermuted),
        "fc2 before its ReLU": without("classifier.4"),
        "fc2 not transposed": tensors("classifier.3.weight", lambda w: w.T),
        "rows and columns swapped": tensors("features.0.weight", lambda w: w.transpose(2, 3)),
    },
    "harmonized-convnext-tiny": {
        "layer norm epsilon 1e-5": epsilon(nn.LayerNorm, 1e-5),
        "tanh GELU": gelu("tanh"),
        "rows and columns of depthwise kernels swapped": tensors("conv_dw.weight", lambda w: w.transpose(2, 3)),
        "no gamma": tensors(".gamma", torch.ones_like),
        "stem norm forgotten": without("stem.1"),
        "head norm forgotten": without("head.norm"),
    },
    "harmonized-efficientnet-b0": {
        "symmetric padding": symmetric_padding,
        "batch norm epsilon 1e-5": epsilon(nn.BatchNorm2d, 1e-5),
        "rows and columns of depthwise kernels swapped": tensors("conv_dw.weight", lambda w: w.transpose(2, 3)),
    },
    "harmonized-levit": {
        "biases of attention reshaped, not transposed": tensors("attention_biases", lambda b: b.T.reshape(b.shape)),
        "batch norm epsilon 1e-3": epsilon(nn.modules.batchnorm._BatchNorm, 1e-3),
        "rows and columns swapped": tensors("conv1.linear.weight", lambda w: w.transpose(2, 3)),
    },
    "harmonized-maxvit-tiny": {
        "relative positions not flipped": tensors("bias_table", lambda b: b.flip(1, 2)),
        "relative positions flipped along rows only": tensors("bias_table", lambda b: b.flip(2)),
        "exact GELU": gelu("none"),
        "batch norm epsilon 1e-5": epsilon(nn.BatchNorm2d, 1e-5),
        "layer norm epsilon 1e-6": epsilon(nn.LayerNorm, 1e-6),
        "before the tanh": without("head.pre_logits.act"),
    },
}


def test_every_known_mistake_is_noticed(harmonised):
    encoder, images = harmonised
    unnoticed = {}
    for mistake, make in MISTAKES[encoder.spec.id].items():
        with pytest.MonkeyPatch.context() as patch:
            make(encoder._module, patch)
            found = misfits(encoder, images)[0]
        if found < 10 * TOLERANCE:
            unnoticed[mistake] = found
    assert not unnoticed
    assert misfits(encoder, images[:1])[0] < TOLERANCE  # and nothing was left behind
