"""Control encoders: what an image says before any network has looked at it. No weights, no training.

Low-level similarity explains part of every brain response, so an aligned encoder has to beat these. All take (n, 3,
size, size) in [0, 1] and use grey = 0.299 R + 0.587 G + 0.114 B (Rec. 601 luma) where they need one channel.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from pipelines.encoders.network import Network
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.weights import Weights

__all__ = ["ColourHistogram", "GaborPyramid", "Hog", "Pixels", "network"]


def _grey(x: Tensor) -> Tensor:
    return x[:, 0] * 0.299 + x[:, 1] * 0.587 + x[:, 2] * 0.114


class Pixels(nn.Module):
    """The image itself, averaged down to ``grid`` x ``grid`` pixels: 3 * grid**2 numbers, channel by channel.

    Examples
    --------
    >>> Pixels(grid=2)(torch.ones(1, 3, 8, 8)).shape
    torch.Size([1, 12])
    """

    def __init__(self, grid: int = 16) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (n, 3, size, size) to (n, 3 * grid**2)."""
        return avg_pool2d(x, x.shape[-1] // self.grid).flatten(1)


class ColourHistogram(nn.Module):
    """Joint RGB histogram: the fraction of pixels in each of ``bins``**3 equal cubes of the colour solid.

    Swain & Ballard 1991, Colour indexing (https://doi.org/10.1007/BF00130487). Each row sums to one, and where in the
    image a colour lies does not matter. Order: blue fastest, then green, then red.

    Examples
    --------
    >>> ColourHistogram(bins=2)(torch.zeros(1, 3, 4, 4)).tolist()
    [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """

    def __init__(self, bins: int = 8) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (n, 3, size, size) to (n, bins**3)."""
        cell = (x * self.bins).long().clamp_(0, self.bins - 1)
        cube = ((cell[:, 0] * self.bins + cell[:, 1]) * self.bins + cell[:, 2]).flatten(1)
        counts = torch.zeros(len(x), self.bins**3, dtype=x.dtype, device=x.device)
        counts.scatter_add_(1, cube, torch.ones_like(cube, dtype=x.dtype))
        return counts / cube.shape[1]


class GaborPyramid(nn.Module):
    """Oriented energy at several scales: a population of complex cells.

    Adelson & Bergen 1985, Spatiotemporal energy models (https://doi.org/10.1364/JOSAA.2.000284): a pair of filters
    in quadrature, squared and summed. The pair is one analytic Gabor, a Gaussian around (f, theta) in the frequency
    plane and nothing on the opposite side, so that the squared modulus of the response is the energy::

        G(u) = exp(-|u - u0|**2 / (2 s**2)),   u0 = f (cos theta, sin theta),   s = f / 3,   G(0) = 0
        output = sqrt(mean over a cell of |G * image|**2)

    ``s = f / 3`` is a half-height bandwidth of 1.2 octaves; macaque simple cells have a median of 1.4 (De Valois,
    Albrecht & Thorell 1982). The image is mirrored at its edges before filtering, so that they add little energy.
    Each scale is an octave below the last and is computed on half the pixels a side, frequencies beyond dropped.

    Parameters
    ----------
    wavelength : int
        Of the finest scale, in pixels of the preprocessed image.
    n_scales, n_orientations : int
        Orientation k prefers gratings whose luminance changes along 180 * k / n degrees, counted from the row axis
        (to the right) towards the column axis (down).
    grid : int
        Cells per side over which energy is averaged.

    Notes
    -----
    Order of the output: scale (fine to coarse), orientation, row, column. The size of the image and the margin (half
    the coarsest wavelength) must halve ``n_scales - 1`` times.
    """

    def __init__(self, wavelength: int = 4, n_scales: int = 4, n_orientations: int = 6, grid: int = 8) -> None:
        super().__init__()
        self.wavelength, self.n_scales, self.n_orientations, self.grid = wavelength, n_scales, n_orientations, grid
        self._filters: dict[tuple[int, torch.device], Tensor] = {}

    def filters(self, size: int, device: torch.device) -> Tensor:
        """Return (orientation, size, size) frequency responses, made once; per pixel, all scales have the same."""
        if (size, device) not in self._filters:
            f = 1 / self.wavelength
            u = torch.fft.fftfreq(size, dtype=torch.float64)
            bank = []
            for k in range(self.n_orientations):
                theta = math.pi * k / self.n_orientations
                distance2 = (u[None, :] - f * math.cos(theta)) ** 2 + (u[:, None] - f * math.sin(theta)) ** 2
                bank.append(torch.exp(-distance2 / (2 * (f / 3) ** 2)))
            stacked = torch.stack(bank).float()
            stacked[:, 0, 0] = 0  # no energy from the mean luminance
            self._filters[size, device] = stacked.to(device)
        return self._filters[size, device]

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (n, 3, size, size) to (n, scales * orientations * grid**2)."""
        margin = self.wavelength * 2 ** (self.n_scales - 2)
        grey = pad(_grey(x)[:, None], (margin,) * 4, mode="reflect")
        spectrum = torch.fft.fftshift(torch.fft.fft2(grey - grey.mean((2, 3), keepdim=True)), dim=(2, 3))
        energies = []
        for scale in range(self.n_scales):
            side, edge = grey.shape[-1] >> scale, margin >> scale
            cut = (grey.shape[-1] - side) // 2
            low = torch.fft.ifftshift(spectrum[..., cut : cut + side, cut : cut + side], dim=(2, 3)) / 4**scale
            response = torch.fft.ifft2(low * self.filters(side, x.device))
            energy = (response.real**2 + response.imag**2)[..., edge : side - edge, edge : side - edge]
            energies.append(avg_pool2d(energy, energy.shape[-1] // self.grid).sqrt().flatten(1))
        return torch.cat(energies, 1)


class Hog(nn.Module):
    """Histograms of oriented gradients.

    Dalal & Triggs 2005 (https://doi.org/10.1109/CVPR.2005.177), as they recommend: gradients by [-1, 0, 1] without
    smoothing, in the colour channel where they are largest; unsigned orientation in 9 bins, each gradient's
    magnitude shared linearly between the two nearest bin centres; cells of ``cell`` pixels; overlapping blocks of
    2 x 2 cells, each L2-Hys normalised (unit length, clipped at 0.2, unit length again). Votes are not shared between
    cells and blocks have no Gaussian window, as in scikit-image.

    Order of the output: block row, block column, cell of the block, bin. A flat image gives zeros.
    """

    def __init__(self, cell: int = 16, bins: int = 9) -> None:
        super().__init__()
        self.cell, self.bins = cell, bins

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (n, 3, size, size) to (n, (size / cell - 1)**2 * 4 * bins)."""
        dx, dy = torch.zeros_like(x), torch.zeros_like(x)
        dx[..., :, 1:-1] = x[..., :, 2:] - x[..., :, :-2]
        dy[..., 1:-1, :] = x[..., 2:, :] - x[..., :-2, :]
        strongest = (dx**2 + dy**2).argmax(1, keepdim=True)
        dx, dy = dx.gather(1, strongest), dy.gather(1, strongest)
        magnitude = torch.hypot(dx, dy)
        # bin centres at (k + 1/2) * 180 / bins degrees, a circle of 180
        position = torch.atan2(dy, dx) * (self.bins / math.pi) - 0.5
        lower = position.floor()
        share = position - lower
        votes = torch.zeros(len(x), self.bins, *x.shape[2:], dtype=x.dtype, device=x.device)
        votes.scatter_add_(1, lower.long() % self.bins, magnitude * (1 - share))
        votes.scatter_add_(1, (lower.long() + 1) % self.bins, magnitude * share)
        cells = avg_pool2d(votes, self.cell) * self.cell**2
        windows = cells.unfold(2, 2, 1).unfold(3, 2, 1)  # (n, bin, block row, block column, 2, 2)
        blocks = windows.permute(0, 2, 3, 4, 5, 1).flatten(3)
        return _unit(_unit(blocks).clamp(max=0.2)).flatten(1)


def _unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-10).sqrt()


CONTROLS: dict[str, Callable[..., nn.Module]] = {
    "pixels": Pixels,
    "gabor-pyramid": GaborPyramid,
    "hog": Hog,
    "colour-histogram": ColourHistogram,
}


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> Network:
    """Build the control encoder of a ``classical`` table; there is one layer, its output."""
    arguments = {key: value for key, value in spec.model.items() if key != "name"}
    return Network(CONTROLS[spec.model["name"]](**arguments), ("output",))
