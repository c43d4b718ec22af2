"""The bicubic of ``tf.image.resize``, to the last bit."""

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.encoders.harmonization_resize import resize, taps
from pipelines.encoders.preprocessing import exact_transform
from pipelines.encoders.registry import find
from tests.harmonization_reference import REFERENCES
from tests.references.harmonization import recipe

NOISE = np.random.default_rng(0).integers(0, 256, (150, 333, 3), np.uint8)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_pixels_of_image_files_are_tensorflows_bit_for_bit(number, tmp_path):
    """Decoded and resized in TensorFlow: one shrunk and stretched, one shrunk along both axes, one JPEG."""
    reference = REFERENCES["pixels"][number]
    pixels = resize(np.asarray(Image.open(recipe.write_probes(tmp_path)[number])), 224)
    assert pixels[0, 0].tolist() == reference["corner"]
    assert hashlib.blake2b(pixels.tobytes(), digest_size=16).hexdigest() == reference["blake2b"]


def keys_by_definition(image: np.ndarray, size: int) -> np.ndarray:
    """Keys' cubic, a = -1/2, in float64, without TensorFlow's table: taps outside dropped, the rest renormalised."""

    def matrix(n: int) -> np.ndarray:
        x = np.abs((np.arange(size)[:, None] + 0.5) * n / size - 0.5 - np.arange(n))
        near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        weights = np.where(x <= 1, near, np.where(x < 2, far, 0))
        return weights / weights.sum(1, keepdims=True)

    return np.einsum("yh,xw,hwc->yxc", matrix(image.shape[0]), matrix(image.shape[1]), image.astype(float))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40))
def test_every_size_follows_the_definition_within_the_step_of_the_table(height, width, size):
    image = NOISE[:height, :width]
    assert np.abs(resize(image, size) - keys_by_definition(image, size)).max() < 1.0


@given(st.integers(1, 2000), st.integers(1, 300))
def test_weights_sum_to_one_and_stay_inside_the_image(n_in, n_out):
    pixels, weights = taps(n_in, n_out)
    assert pixels.min() >= 0 and pixels.max() < n_in
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)


def test_an_image_of_the_right_size_is_left_alone():
    image = NOISE[:100, :100]
    assert np.array_equal(resize(image, 100), image)


def test_no_other_bicubic_would_pass():
    image = torch.from_numpy(NOISE).permute(2, 0, 1)[None].float()
    ours = torch.from_numpy(resize(NOISE, 64)).permute(2, 0, 1)
    for antialias in (False, True):
        theirs = torch.nn.functional.interpolate(image, (64, 64), mode="bicubic", antialias=antialias)[0]
        assert (theirs - ours).abs().max() > 5


def test_the_encoders_transform_squashes_and_normalises_without_clipping():
    p = find("harmonized-vit").preprocessing
    x = exact_transform(p)(Image.fromarray(NOISE))
    mean, std = np.array(p.mean, np.float32), np.array(p.std, np.float32)
    expected = (resize(NOISE, 224) / np.float32(255) - mean) / std
    assert x.shape == (3, 224, 224) and np.array_equal(x.permute(1, 2, 0), expected)
    assert x[0].max() > (1 - mean[0]) / std[0]  # the overshoot of the cubic
