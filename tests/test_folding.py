"""Folding a network changes its numbers by rounding, what is tapped stays, and only what pays is kept."""

import gc
import weakref

import pytest
import torch
from torch import nn

from pipelines.encoders.build import build
from pipelines.encoders.folding import FORMS, Folding
from pipelines.encoders.registry import EncoderSpec, find
from pipelines.encoders.torchvision_import import torchvision  # noqa: F401  before timm, which imports it
from pipelines.extract import forms
from stores.names import EmbeddingName


class Block(nn.Module):
    """A residual block with a norm of timm's kind, and a convolution that is used twice."""

    def __init__(self) -> None:
        from timm.layers import BatchNormAct2d

        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 6, 3, padding=1, bias=False), BatchNormAct2d(6)
        self.shared, self.other = nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x))
        return self.other(self.shared(self.shared(x))) + x


def drawn(network: nn.Module) -> nn.Module:
    """Return it with norms as after training: a fresh one changes nothing."""
    draw = torch.Generator().manual_seed(1)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for values, low in ((norm.weight, 0.5), (norm.bias, -0.5), (norm.running_mean, -1), (norm.running_var, 1)):
                values.data.copy_(low + torch.rand(values.shape, generator=draw))
    return network.eval().requires_grad_(False)


def test_a_folded_network_gives_the_same_numbers_and_an_unfolded_one_the_same_bits():
    network, images = drawn(Block()), torch.rand(2, 3, 8, 8)
    plain = network(images)
    folding = Folding(network)
    folding.take("folded")
    folded = network(images)
    assert network.first.bias is not None and torch.allclose(folded, plain, rtol=1e-5, atol=1e-5)
    folding.take("plain")
    assert network.first.bias is None and torch.equal(network(images), plain)


def test_a_convolution_that_is_used_twice_is_left_alone():
    network = drawn(Block())
    weight = network.shared.weight.clone()
    Folding(network).take("folded")
    assert torch.equal(network.shared.weight, weight)


@pytest.mark.parametrize("tapped", ["first", "norm", "shared"])
def test_what_somebody_listens_at_put_out_what_it_did(tapped):
    network, images, seen, folding = drawn(Block()), torch.rand(2, 3, 8, 8), [], None

    def listen(module: nn.Module, given: tuple, out: torch.Tensor) -> None:
        unfolded = folding and folding.unfolded(module)
        seen.append(unfolded(*given) if unfolded else out.clone())

    network.get_submodule(tapped).register_forward_hook(listen)
    network(images)
    n = len(seen)
    folding = Folding(network)
    folding.take("folded")
    network(images)
    assert len(seen) == 2 * n > 0 and (folding.unfolded(network.first) is None) == (network.first.bias is None)
    assert all(torch.allclose(now, then, rtol=1e-5, atol=1e-5) for now, then in zip(seen[n:], seen[:n], strict=True))


def test_a_convolution_in_a_module_that_its_norm_is_not_in_is_left_alone():
    network = drawn(nn.Sequential(nn.Sequential(nn.Conv2d(3, 6, 3, bias=False)), nn.BatchNorm2d(6)))
    Folding(network).take("folded")
    assert network[0][0].bias is None


def test_a_network_that_cannot_be_followed_is_not_folded():
    class Odd(Block):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.sum() > 0 else x

    network = drawn(Odd())
    Folding(network).take("folded")
    assert network.first.bias is None


@pytest.fixture
def small() -> EncoderSpec:
    return find("mobilenetv3-small-tv")


@pytest.mark.parametrize(
    ("gains", "errors", "form", "why"),
    [
        ((2.0, 1.0), (0.0, 0.0), "folded", "2.00 times"),
        ((1.04, 1.0), (0.0, 0.0), "plain", "only 1.04"),
        ((2.0, 3.0), (0.01, 0.01), "plain", "off by 1e-02"),
        ((2.0, 3.0), (0.0, 2e-5), "winograd", "3.00 times as fast and 2e-05"),
        ((2.0, 3.0), (0.0, float("nan")), "folded", "2.00 times"),
        ((2.0, 2.04), (0.0, 0.0), "folded", "2.00 times"),
        ((2.0, 3.0), (float("nan"), float("nan")), "plain", "off by nan"),
    ],
)
def test_only_what_pays_and_stays_within_the_tolerance_is_kept(small, monkeypatch, gains, errors, form, why):
    encoder = build(small, weights="random:7")
    monkeypatch.setattr(type(encoder), "forms", FORMS)
    monkeypatch.setattr(type(encoder), "take", lambda self, form: setattr(self, "form", form))
    seconds = {"plain": 1.0, "folded": 1 / gains[0], "winograd": 1 / gains[1]}
    out = {
        "plain": float("nan") if errors[0] != errors[0] else 1.0,
        "folded": 1.0 + errors[0],
        "winograd": 1.0 + errors[1],
    }
    monkeypatch.setattr(forms, "_seconds", lambda encoder, images: seconds[encoder.form])
    monkeypatch.setattr(type(encoder), "output", lambda self, images: torch.full((2, 1), out[self.form]).double())
    found, said = forms.choose_form(encoder, 2)
    assert found == form and why in said


def test_a_network_folds_and_unfolds_to_the_same_bits(small):
    encoder, images = build(small, weights="random:7"), torch.rand(2, 3, 224, 224)
    (plain,) = encoder(images).values()
    encoder.take("folded")
    (folded,) = encoder(images).values()
    encoder.take("plain")
    assert torch.equal(*encoder(images).values(), plain) and not torch.equal(folded, plain)
    encoder.take("folded")
    assert torch.equal(*encoder(images).values(), folded)


def test_a_layer_has_the_same_bits_whatever_other_layers_are_asked_for(small):
    """Between a convolution and its norm as well, where a folded network has no such numbers."""
    between, beyond, last = (
        EmbeddingName.parse(f"{small.id}:{layer}.gap")
        for layer in ("features.0.0", "features.1.block.0.0", "features.12")
    )
    images = torch.rand(2, 3, 224, 224)

    def rows(*taps: EmbeddingName) -> dict[EmbeddingName, torch.Tensor]:
        encoder = build(small, weights="random:7", taps=taps)
        plain = encoder(images)
        encoder.take("folded")
        folded = encoder(images)
        assert all(torch.allclose(folded[tap], plain[tap], rtol=1e-3, atol=1e-5) for tap in taps)
        return folded

    together = rows(between, beyond, last)
    assert all(torch.equal(rows(tap)[tap], together[tap]) for tap in together)


def test_a_network_that_stays_folded_keeps_only_the_plain_weights_that_are_listened_at(small):
    between = EmbeddingName.parse(f"{small.id}:features.0.0.gap")
    encoder, images = (
        build(small, weights="random:7", taps=[between, EmbeddingName(small.id)]),
        torch.rand(1, 3, 224, 224),
    )
    convolutions = [module for module in encoder._module.modules() if isinstance(module, nn.Conv2d)]
    plain = [weakref.ref(convolution.weight) for convolution in convolutions]
    encoder.take("folded")
    before = encoder(images)
    folded = [convolution.weight is not weight() for convolution, weight in zip(convolutions, plain, strict=True)]
    encoder.keep_form()
    gc.collect()
    assert [weight() is None for weight in plain] == [False, *folded[1:]] and sum(folded) > 30
    assert all(torch.equal(encoder(images)[tap], before[tap]) for tap in before)
