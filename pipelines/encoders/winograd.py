"""3 x 3 convolutions with a quarter of the products, by Winograd's minimal filtering on tiles of 4 x 4 numbers.

Six by six numbers of the input and the nine of a filter are brought into a form in which 36 products, summed over the
channels, give the sixteen numbers of a tile: one product of matrices for each of the 36. Bringing them there and back
takes sums, and pays where there are many channels. What comes out differs by rounding, 2e-6 of its length (measured).

Lavin and Gray, Fast algorithms for convolutional neural networks, CVPR 2016 (https://arxiv.org/abs/1509.09308).
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, add, nn, sub

__all__ = ["MORE_BYTES", "Winograd", "is_tiled"]

MORE_BYTES = 36 // 9
"""Besides the weights of a convolution, times those."""

_LEAST_CHANNELS = 128
"""With 64 the sums take as long as the products that are saved, measured."""
_TILES = 192
"""In a product of matrices: enough for it to be fast, and few enough for a cache."""
_FILTER = torch.tensor(  # G of the paper
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
) / torch.tensor([[24], [24], [24], [24], [24], [24]])


def is_tiled(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Say whether a module is a convolution that can be computed this way, and has the channels for it to pay."""
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == (3, 3)
        and module.stride == module.padding == module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
        and min(module.in_channels, module.out_channels) >= _LEAST_CHANNELS
        and module.in_channels % 16 == module.out_channels % 16 == 0  # every matrix begins at a line of the cache
    )


class Winograd:
    """What a convolution with filters of 3 x 3, stride 1 and a border of zeros does.

    Parameters
    ----------
    convolution : nn.Conv2d
        As `is_tiled` wants it; its weights are read once.

    Examples
    --------
    >>> convolution = nn.Conv2d(128, 128, 3, padding=1).requires_grad_(False)
    >>> x = torch.randn(2, 128, 7, 9, generator=torch.Generator().manual_seed(0))
    >>> change = Winograd(convolution)(x) - convolution(x)
    >>> bool(change.norm() < 1e-5 * convolution(x).norm())
    True
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        weight = convolution.weight.detach().double()
        in_36 = torch.einsum("ij,ocjk,lk->ilco", _FILTER, weight, _FILTER)
        self._weight = in_36.float().flatten(0, 1).contiguous()  # (36, in, out)
        self._bias = convolution.bias

    def __call__(self, x: Tensor) -> Tensor:
        """Convolve (n, in, height, width) float32 to (n, out, height, width), channels last in memory."""
        n, n_in, height, width = x.shape
        n_out, down, across = self._weight.shape[2], -(-height // 4), -(-width // 4)  # tiles
        n_images, n_rows = max(1, -(-_TILES // (down * across))), min(down, -(-_TILES // across))  # at a time
        out = x.new_empty(n, down * 4, across * 4, n_out)
        for first in range(0, n, n_images):
            images = x[first : first + n_images].permute(0, 2, 3, 1)
            padded = x.new_zeros(len(images), down * 4 + 2, across * 4 + 2, n_in)
            padded[:, 1 : height + 1, 1 : width + 1] = images
            for row in range(0, down, n_rows):
                to = out[first : first + n_images, 4 * row : 4 * (row + n_rows)]
                self._tiles(padded[:, 4 * row : 4 * (row + n_rows) + 2], to)
        found = out[:, :height, :width].contiguous()
        return (found if self._bias is None else found.add_(self._bias)).permute(0, 3, 1, 2)

    def _tiles(self, x: Tensor, out: Tensor) -> None:
        """Convolve tiles and their border, (n, 4 down + 2, 4 across + 2, in), to (n, 4 down, 4 across, out)."""
        n, down, across, n_out = len(x), out.shape[1] // 4, out.shape[2] // 4, out.shape[3]
        rows = x.new_empty(6, n, down, x.shape[2], x.shape[3])
        _there([x[:, i : i + 4 * down - 3 : 4] for i in range(6)], rows.unbind())
        both = x.new_empty(6, 6, n, down, across, x.shape[3])
        _there([rows[:, :, :, j : j + 4 * across - 3 : 4] for j in range(6)], both.unbind(1))
        products = torch.bmm(both.view(36, -1, x.shape[3]), self._weight).view(6, 6, n, down, across, n_out)
        half = x.new_empty(4, 6, n, down, across, n_out)
        _back(products.unbind(), half.unbind())
        _back(half.unbind(1), out.view(n, down, 4, across, 4, n_out).permute(4, 2, 0, 1, 3, 5).unbind())


def _there(x: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Bring six numbers of the input into the form of the products, along one axis (the paper's B)."""
    near, far = torch.empty_like(out[0]), torch.empty_like(out[0])
    add(x[4], x[2], alpha=-5, out=out[0]).add_(x[0], alpha=4)
    add(x[4], x[2], alpha=-4, out=near)
    add(x[3], x[1], alpha=-4, out=far)
    add(near, far, out=out[1])
    sub(near, far, out=out[2])
    sub(x[4], x[2], out=near)
    sub(x[3], x[1], out=far)
    add(near, far, alpha=2, out=out[3])
    add(near, far, alpha=-2, out=out[4])
    add(x[5], x[3], alpha=-5, out=out[5]).add_(x[1], alpha=4)


def _back(products: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Bring six sums of products into the four numbers of a tile, along one axis (the paper's A)."""
    first, last = products[0], products[5]
    even, odd = add(products[1], products[2]), sub(products[1], products[2])
    even_twice, odd_twice = add(products[3], products[4]), sub(products[3], products[4])
    add(first, even, out=out[0]).add_(even_twice)
    add(odd, odd_twice, alpha=2, out=out[1])
    add(even, even_twice, alpha=4, out=out[2])
    add(last, odd, out=out[3]).add_(odd_twice, alpha=8)
