"""Control encoders do what their formulas say."""

import math

import numpy as np
import pytest
import torch

from pipelines.encoders.classical import ColourHistogram, GaborPyramid, Hog, Pixels


def grating(wavelength: float, degrees: float, size: int = 128) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    angle = math.radians(degrees)
    wave = 0.5 + 0.5 * torch.cos(2 * math.pi * (x * math.cos(angle) + y * math.sin(angle)) / wavelength)
    return wave.expand(1, 3, size, size).float()


@pytest.mark.parametrize("scale", range(4))
@pytest.mark.parametrize("orientation", range(6))
def test_a_grating_drives_the_filter_of_its_own_scale_and_orientation_most(scale, orientation):
    rows = GaborPyramid()(grating(4 * 2**scale, 30 * orientation)).view(4, 6, 64).mean(2)
    assert rows.argmax().item() == scale * 6 + orientation


def test_the_energy_of_a_grating_is_its_amplitude_whatever_its_phase():
    x = torch.arange(128).expand(128, 128)
    for phase in (0.0, 0.7, math.pi / 2):
        wave = (0.5 + 0.4 * torch.cos(2 * math.pi * x / 8 + phase)).expand(1, 3, 128, 128)
        inside = GaborPyramid()(wave).view(4, 6, 8, 8)[1, 0, 2:6, 2:6]
        torch.testing.assert_close(inside, torch.full_like(inside, 0.2), atol=2e-3, rtol=0)  # half, one-sided


def test_a_flat_image_has_no_energy_and_no_gradients():
    flat = torch.full((1, 3, 128, 128), 0.37)
    assert GaborPyramid()(flat).abs().max() < 1e-6
    assert Hog()(flat).abs().max() == 0


def test_the_histogram_of_an_image_sums_to_one_and_ignores_where_a_colour_lies():
    x = torch.rand(3, 3, 128, 128)
    rows = ColourHistogram()(x)
    torch.testing.assert_close(rows.sum(1), torch.ones(3))
    shuffled = x.flatten(2)[:, :, torch.randperm(128 * 128)].view_as(x)
    assert torch.equal(ColourHistogram()(shuffled), rows)
    counts, _ = np.histogramdd(x[0].flatten(1).T.numpy(), bins=8, range=[(0, 1)] * 3)
    np.testing.assert_allclose(rows[0], counts.ravel() / 128**2, atol=1e-7)


def test_pixels_are_means_of_squares():
    x = torch.rand(1, 3, 128, 128)
    expected = x.view(3, 16, 8, 16, 8).mean((2, 4)).flatten()
    torch.testing.assert_close(Pixels()(x)[0], expected)


def hog_by_loops(image: np.ndarray, cell: int, bins: int) -> np.ndarray:
    """The textbook, one pixel at a time in float64."""
    size = image.shape[1]
    n = size // cell
    cells = np.zeros((n, n, bins))
    for row in range(size):
        for column in range(size):
            best = (0.0, 0.0, 0.0)
            for channel in image:
                dx = channel[row, column + 1] - channel[row, column - 1] if 0 < column < size - 1 else 0.0
                dy = channel[row + 1, column] - channel[row - 1, column] if 0 < row < size - 1 else 0.0
                best = max(best, (math.hypot(dx, dy), dx, dy), key=lambda gradient: gradient[0])
            magnitude, dx, dy = best
            position = (math.degrees(math.atan2(dy, dx)) % 180) / (180 / bins) - 0.5
            lower = math.floor(position)
            cells[row // cell, column // cell, lower % bins] += magnitude * (1 - (position - lower))
            cells[row // cell, column // cell, (lower + 1) % bins] += magnitude * (position - lower)
    blocks = []
    for row in range(n - 1):
        for column in range(n - 1):
            block = cells[row : row + 2, column : column + 2].ravel()
            block = np.minimum(block / np.sqrt((block**2).sum() + 1e-10), 0.2)
            blocks.append(block / np.sqrt((block**2).sum() + 1e-10))
    return np.concatenate(blocks)


def test_hog_equals_the_textbook_in_loops():
    image = np.random.default_rng(0).random((3, 32, 32)).astype(np.float32)
    expected = hog_by_loops(image.astype(np.float64), cell=8, bins=9)
    np.testing.assert_allclose(Hog(cell=8)(torch.from_numpy(image)[None])[0], expected, atol=2e-5)


def test_a_vertical_edge_votes_for_horizontal_gradients():
    x = torch.zeros(1, 3, 128, 128)
    x[..., 64:] = 1
    votes = Hog()(x).view(7, 7, 4, 9).sum((0, 1, 2))
    assert set(votes.topk(2).indices.tolist()) == {0, 8}  # 0 degrees lies between the first and the last bin
    assert votes[1:8].abs().max() < 1e-6
