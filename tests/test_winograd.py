"""A convolution in Winograd's way is the convolution, for every size, image by image, and in a whole network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pipelines.encoders.build import build
from pipelines.encoders.folding import Folding
from pipelines.encoders.registry import find
from pipelines.encoders.winograd import Winograd, is_tiled


def convolution(n_in: int = 128, n_out: int = 128, **options) -> nn.Conv2d:
    torch.manual_seed(1)
    return nn.Conv2d(n_in, n_out, 3, padding=1, **options).requires_grad_(False)


def drawn(*shape: int) -> torch.Tensor:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    return images.contiguous(memory_format=torch.channels_last)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 9), height=st.integers(1, 30), width=st.integers(1, 30), bias=st.booleans())
def test_it_agrees_with_a_float64_convolution_whatever_the_size(n, height, width, bias):
    direct, x = convolution(144, 128, bias=bias), drawn(n, 144, height, width)
    found = Winograd(direct)(x)
    expected = direct.double()(x.double())
    assert found.shape == expected.shape
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).norm() <= 5e-6 * expected.norm()


def test_images_that_are_wide_go_through_in_strips():
    direct, x = convolution(), drawn(2, 128, 70, 90)  # 18 x 23 tiles
    assert (Winograd(direct)(x) - direct(x)).norm() <= 5e-6 * direct(x).norm()


@pytest.mark.parametrize(("n", "size"), [(13, 14), (32, 7), (2, 56)])
def test_the_bits_of_an_image_depend_on_its_place_and_not_on_the_other_images(n, size):
    tiled, x = Winograd(convolution()), drawn(n, 128, size, size)
    alone = torch.zeros_like(x)
    alone[n - 1] = x[n - 1]
    assert torch.equal(tiled(alone)[n - 1], tiled(x)[n - 1])


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3, padding=1, groups=2),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(128, 128, 5, padding=1),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.Conv2d(136, 128, 3, padding=1),
        nn.Linear(128, 128),
    ],
    ids=str,
)
def test_other_convolutions_are_left_to_their_library(other):
    assert not is_tiled(other)


class Block(nn.Module):
    """A convolution that is folded, one that has nothing to fold."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = convolution(bias=False), nn.BatchNorm2d(128), convolution()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)).relu()) + x


def test_a_network_puts_out_what_it_did_and_can_be_made_what_it_was():
    network, images = Block().eval().requires_grad_(False), torch.rand(2, 128, 9, 9)
    network.norm.running_mean += 0.5
    plain = network(images)
    folding = Folding(network)
    assert folding.forms == ("plain", "folded", "winograd")
    out = {}
    for form in ("winograd", "folded", "plain", "folded", "winograd"):
        folding.take(form)
        found = network(images)
        assert torch.equal(out.setdefault(form, found), found)
        assert (found - plain).norm() <= 1e-5 * plain.norm()
    assert torch.equal(out["plain"], plain) and not torch.equal(out["winograd"], out["folded"])


def test_a_network_without_wide_convolutions_has_no_such_form():
    encoder = build(find("mobilenetv3-small-tv"), weights="random:7")
    assert encoder.forms == ("plain", "folded")
