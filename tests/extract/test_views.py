"""Views show what they say, of every image the same way, whatever its size and whoever asks."""

import hashlib
import tracemalloc
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipelines.encoders.torchvision_import import torchvision
from pipelines.extract.images import DecodedImage
from pipelines.extract.views import VIEWS, check_views, describe_views, see
from stores.errors import EmbedctlError
from stores.names import EmbeddingName
from tests.photos import photograph


def decoded(pixels: np.ndarray) -> DecodedImage:
    return DecodedImage(pixels, hashlib.sha256(pixels.tobytes()).hexdigest(), "RGB")


def viewed(pixels: np.ndarray, view: str) -> np.ndarray:
    return see(decoded(pixels), view).rgb


def off_by(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs.astype(np.float64)).max())


PHOTO = photograph(1, 330, 224)
ODD = photograph(2, 101, 133)


@pytest.mark.parametrize("sigma", [0.5, 3, 9, 70])
@pytest.mark.parametrize("pixels", [PHOTO, ODD], ids=["landscape", "portrait"])
def test_blur_is_scipys_gaussian_of_a_sigma_that_grows_with_the_image(pixels, sigma):
    at_this_size = sigma * min(pixels.shape[:2]) / 224
    truth = gaussian_filter(pixels.astype(np.float64), (at_this_size, at_this_size, 0), mode="mirror", truncate=4)
    assert off_by(viewed(pixels, f"blur-{sigma}"), truth) < 0.501


def blurred_by_one_matrix_a_side(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """The rows that stores hold were made so: (n, n) weights in float32 for a side of n pixels."""
    sigma *= min(pixels.shape[:2]) / 224
    radius = round(4 * sigma)

    def matrix(n: int) -> torch.Tensor:
        period = max(1, 2 * (n - 1))
        offsets = np.arange(-radius, radius + 1)
        kernel = np.bincount(offsets % period, np.exp(-(offsets**2) / (2 * sigma**2)), minlength=period)
        i, j = np.arange(n)[:, None], np.arange(n)
        weights = (kernel / kernel.sum())[(j - i) % period]
        weights[:, 1:-1] += (kernel / kernel.sum())[(i + j[1:-1]) % period]
        return torch.from_numpy(weights).float()

    rows, columns = map(matrix, pixels.shape[:2])
    blurred = rows @ (torch.from_numpy(pixels).permute(2, 0, 1).float() @ columns.T)
    return np.rint(blurred.permute(1, 2, 0).numpy().clip(0, 255)).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "sigma"),
    [*product([(101, 133), (1, 5), (2, 90)], [0.5, 2.25, 9, 400]), ((480, 640), 9), ((2048, 24), 9)],
)
def test_no_pixel_of_a_blur_differs_from_one_matrix_a_side_up_to_2048_pixels(size, sigma):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert np.array_equal(viewed(pixels, f"blur-{sigma}"), blurred_by_one_matrix_a_side(pixels, sigma))


@pytest.mark.parametrize(("size", "sigma"), [((2049, 21), 400), ((24, 2304), 9), ((2100, 21), 0.5)])
def test_a_longer_side_is_blurred_in_bands_with_the_same_numbers_to_rounding(size, sigma):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    off = np.abs(viewed(pixels, f"blur-{sigma}").astype(int) - blurred_by_one_matrix_a_side(pixels, sigma))
    assert off.max() <= 1 and off.mean() < 1e-3


def test_a_blur_of_a_long_strip_takes_memory_for_its_pixels_and_not_for_the_square_of_its_side():
    strip = decoded(np.zeros((30, 3000, 3), np.uint8))
    tracemalloc.start()
    try:
        see(strip, "blur-9")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 60 * strip.rgb.nbytes  # a matrix of 3,000 x 3,000 alone is 270 times as much


def test_blur_is_torchvisions_too():
    image = torch.from_numpy(PHOTO).permute(2, 0, 1).float()
    truth = torchvision.transforms.functional.gaussian_blur(image, [2 * 36 + 1] * 2, [9.0, 9.0])
    assert off_by(viewed(PHOTO, "blur-9"), truth.permute(1, 2, 0).numpy()) < 0.501


def test_the_same_picture_in_another_size_looks_the_same_through_a_view():
    """A blur in pixels of the file would blur a large file less."""
    small = Image.fromarray(photograph(3, 224, 224))
    large = np.array(small.resize((672, 672), Image.Resampling.BICUBIC))
    for view in ("blur-9", "fovea-medium", "lowres-28", "mosaic-28"):
        shrunk = Image.fromarray(viewed(large, view)).resize((224, 224), Image.Resampling.BOX)
        assert np.abs(np.array(shrunk) - viewed(np.array(small), view).astype(float)).mean() < 1.5, view


@pytest.mark.parametrize(("level", "kernel"), [("low", 45), ("medium", 51), ("high", 57)])
def test_fovea_is_the_published_formula_at_the_size_it_was_published_for(level, kernel):
    """UBP: (1 - alpha) image + alpha blurred, alpha = 1 - exp(-3 r) / 2, OpenCV's Gaussian of so many pixels."""
    pixels = photograph(4, 224, 224)
    sigma = 0.3 * ((kernel - 1) * 0.5 - 1) + 0.8
    blurred = gaussian_filter(pixels.astype(float), (sigma, sigma, 0), mode="mirror", radius=kernel // 2)
    expected = np.empty_like(blurred)
    for row in range(224):
        for column in range(224):
            r = min(1, np.sqrt((row - 112) ** 2 + (column - 112) ** 2) / np.sqrt(111**2 + 111**2))
            alpha = 1 - 0.5 * np.exp(-3 * r)
            expected[row, column] = (1 - alpha) * pixels[row, column] + alpha * blurred[row, column]
    assert off_by(viewed(pixels, f"fovea-{level}"), expected) < 0.501


def test_a_fovea_is_sharpest_at_the_centre_of_any_image():
    stripes = np.zeros((300, 500, 3), np.uint8)
    stripes[:, ::2] = 255
    contrast = viewed(stripes, "fovea-low").astype(int)
    contrast = np.abs(np.diff(contrast[..., 0], axis=1))
    assert contrast[150, 249] > 120 > 40 > contrast[0, 0] and contrast[150, 249] == contrast.max()


@pytest.mark.parametrize("n", [14, 28, 112])
def test_mosaic_is_the_mean_of_every_cell(n):
    pixels = photograph(5, 336, 224)
    cell = 224 // n
    means = pixels.reshape(n, cell, n * 336 // 224, cell, 3).mean((1, 3))
    # Pillow rounds after the rows and again after the columns
    assert off_by(viewed(pixels, f"mosaic-{n}"), means.repeat(cell, 0).repeat(cell, 1)) <= 1


def test_lowres_leaves_nothing_finer_than_its_pixels_and_keeps_what_is_coarser():
    y, x = np.mgrid[:224, :448]
    wave = lambda period: (128 + 100 * np.cos(2 * np.pi * x / period))[..., None].repeat(3, 2).astype(np.uint8)  # noqa: E731
    fine, coarse = viewed(wave(7), "lowres-28"), viewed(wave(112), "lowres-28")
    assert np.abs(fine[:, 16:-16].astype(int) - 128).max() < 8
    assert np.abs(coarse[:, 16:-16].astype(int) - wave(112)[:, 16:-16]).max() < 8
    ramp = (x // 2).astype(np.uint8)[..., None].repeat(3, 2)
    assert np.abs(viewed(ramp, "lowres-28")[:, 16:-16].astype(int) - ramp[:, 16:-16]).max() <= 1


@pytest.mark.parametrize("view", ["lowres-101", "mosaic-500"])
def test_an_image_that_is_coarser_already_is_left_as_it_is(view):
    assert np.array_equal(viewed(ODD, view), ODD)


def test_grey_is_the_luma_of_rec_601_three_times():
    luma = (PHOTO.astype(int) @ [19595, 38470, 7471] + (1 << 15)) >> 16  # 0.299, 0.587, 0.114 in 16 bits
    assert np.array_equal(viewed(PHOTO, "grey"), luma[..., None].repeat(3, 2))


@pytest.mark.parametrize("sigma", [5, 25])
def test_noise_is_gaussian_of_its_sigma_without_bias_and_independent_between_pixels_and_channels(sigma):
    flat = np.full((224, 300, 3), 128, np.uint8)
    noise = viewed(flat, f"noise-{sigma}").astype(float) - 128
    n = noise.size
    assert abs(noise.mean()) < 4 * sigma / n**0.5
    assert abs(noise.var() - sigma**2 - 1 / 12) < 4 * sigma**2 * (2 / n) ** 0.5  # 1/12: rounding to whole grey levels
    assert abs((noise**3).mean()) < 4 * sigma**3 * (15 / n) ** 0.5
    for other in (noise[1:, :, :] * noise[:-1], noise[:, 1:] * noise[:, :-1], noise[..., 0] * noise[..., 1]):
        assert abs(other.mean()) < 4 * sigma**2 / other.size**0.5


def test_the_grain_of_noise_is_a_pixel_at_224():
    noise = viewed(np.full((448, 448, 3), 128, np.uint8), "noise-20").astype(int)
    cells = noise.reshape(224, 2, 224, 2, 3)
    assert (cells == cells[:, :1, :, :1]).all() and abs(cells[:, 0, :, 0].std() - 20) < 0.3


def test_noise_is_that_of_the_file_and_of_nothing_else():
    first, again = viewed(PHOTO, "noise-20"), viewed(PHOTO, "noise-20")
    viewed(ODD, "noise-20")
    np.random.seed(3)
    assert np.array_equal(first, again) and np.array_equal(first, viewed(PHOTO, "noise-20"))
    other = see(replace(decoded(PHOTO), sha256="00" * 32), "noise-20").rgb
    assert not np.array_equal(first, other)
    # the same pattern, weaker: levels of one image differ in nothing else
    strong, weak = (viewed(np.full((64, 64, 3), 128, np.uint8), v).astype(float) - 128 for v in ("noise-20", "noise-2"))
    assert np.abs(strong - 10 * weak).max() <= 5.5


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([view.example for view in VIEWS.values()]))
def test_every_view_of_every_size_is_an_image_of_that_size(width, height, view):
    pixels = np.full((height, width, 3), 77, np.uint8)
    seen = viewed(pixels, view)
    assert seen.shape == pixels.shape and seen.dtype == np.uint8
    assert view.startswith("noise") or np.array_equal(seen, pixels)


@pytest.mark.parametrize(
    "view", ["blur-9", "blur-0.5", "blur-2.25", "fovea-low", "lowres-32", "noise-10", "mosaic-1", "grey"]
)
def test_what_is_written_well_is_a_view_and_part_of_a_name(view):
    check_views(view)
    assert EmbeddingName.parse(f"pixels@{view}").view == view
    assert describe_views(view).startswith(view.partition("-")[0])


@pytest.mark.parametrize(
    ("view", "hint"),
    [
        ("blurr-9", "did you mean 'blur-SIGMA'?"),
        ("sepia", "views are blur-SIGMA, fovea-LEVEL, lowres-N, noise-SIGMA, mosaic-N, grey"),
        ("blur", "write blur-SIGMA, for example blur-9"),
        ("blur-", "write blur-SIGMA, for example blur-9"),
        ("blur-09", "write blur-SIGMA, for example blur-9"),
        ("blur-2.50", "write blur-SIGMA, for example blur-2.5"),
        ("blur-3.0", "write blur-SIGMA, for example blur-3"),
        ("blur-0", "write blur-SIGMA, for example blur-9"),
        ("blur--1", "write blur-SIGMA, for example blur-9"),
        ("blur-nan", "write blur-SIGMA, for example blur-9"),
        ("blur-inf", "write blur-SIGMA, for example blur-9"),
        ("blur-1e3", "write blur-SIGMA, for example blur-9"),
        ("blur-٩", "write blur-SIGMA, for example blur-9"),
        ("lowres-3.5", "write lowres-N, for example lowres-32"),
        ("lowres-0", "write lowres-N, for example lowres-32"),
        ("fovea-51", "write fovea-LEVEL, for example fovea-medium"),
        ("grey-2", "write grey, for example grey"),
        ("mosaic-16 ", "write mosaic-N, for example mosaic-16"),
    ],
)
def test_what_is_no_view_is_refused_with_one_that_is(view, hint):
    with pytest.raises(EmbedctlError) as problem:
        check_views(view)
    assert problem.value.exit_code == 2 and problem.value.hint == hint and repr(view) in str(problem.value)
