"""The exact transform is the library's; the fast one stays within two grey levels of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.encoders import registry
from pipelines.encoders.preprocessing import RESIZES, exact_transform, fast_transform, normalise
from pipelines.encoders.registry import find

SHORTEST = find("vitb16-in1k").preprocessing
RAW = replace(SHORTEST, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Structure at every scale, as in photographs: 1/f noise."""
    rng = np.random.default_rng(seed)
    f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None])
    f[0, 0] = 1
    noise = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, height, width))) / f).real
    noise = (noise - noise.mean()) / noise.std()
    return Image.fromarray(np.clip(128 + 50 * noise, 0, 255).astype(np.uint8).transpose(1, 2, 0))


@pytest.mark.parametrize("fit", ["shortest", "squash"])
@pytest.mark.parametrize("resize", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(500, 375), (375, 500), (640, 640), (801, 533), (180, 240), (300, 900)])
def test_the_fast_transform_stays_within_two_grey_levels_of_pil(fit, resize, size):
    p = replace(RAW, fit=fit, resize=resize)
    image = photograph(*size)
    exact = exact_transform(p)(image) * 255
    fast = fast_transform(p)(np.asarray(image))
    assert fast.dtype == torch.uint8 and fast.shape == exact.shape
    difference = (fast.float() - exact).abs()
    assert difference.mean() < 0.1 and difference.max() <= 2


@settings(max_examples=20, deadline=None)
@given(st.integers(224, 700), st.integers(224, 700))
def test_fast_and_exact_crop_the_same_place(width, height):
    """A ramp would differ by more than two grey levels anywhere else."""
    ramp = np.zeros((height, width, 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, width)[None]
    ramp[..., 1] = np.linspace(0, 255, height)[:, None]
    p = replace(RAW, resize_to=224)
    difference = fast_transform(p)(ramp).float() - exact_transform(p)(Image.fromarray(ramp)) * 255
    assert difference.abs().max() <= 2


def test_normalising_a_batch_is_what_the_exact_transform_does_to_one_image():
    image = photograph(224, 224)
    p = replace(SHORTEST, resize_to=224)
    fast = fast_transform(p)(np.asarray(image))
    assert torch.equal(normalise(fast[None], p)[0], exact_transform(p)(image))


def test_an_algorithm_only_a_family_knows_has_no_fast_transform():
    p = replace(RAW, resize="tf-bicubic", antialias=False)
    assert not p.has_fast
    with pytest.raises(ValueError, match="tf-bicubic"):
        fast_transform(p)


def test_a_card_may_name_the_algorithms_that_there_are_and_no_others():
    assert registry._RESIZES == {"bicubic", "bilinear", *RESIZES}
