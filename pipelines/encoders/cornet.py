"""CORnet-S (Kubilius, Schrimpf et al., 2018): four areas named after the ventral stream, three of them recurrent.

Written from the paper's description; the names of the tensors are those of the published checkpoint. An area runs the
same three convolutions ``times`` times over its own output, with batch norms of its own for each time; the first time
halves the resolution.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

__all__ = ["CORnetS", "RecurrentArea"]

WIDENING = 4  # inside an area, the middle convolution has four times its channels


class RecurrentArea(nn.Module):
    """V2, V4 or IT.

    Parameters
    ----------
    n_in, n_out : int
        Channels before and after.
    times : int
        How often the area runs.
    """

    def __init__(self, n_in: int, n_out: int, times: int) -> None:
        super().__init__()
        self.times = times
        wide = WIDENING * n_out
        self.conv_input = nn.Conv2d(n_in, n_out, 1, bias=False)
        self.skip = nn.Conv2d(n_out, n_out, 1, stride=2, bias=False)
        self.norm_skip = nn.BatchNorm2d(n_out)
        self.conv1 = nn.Conv2d(n_out, wide, 1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(wide, n_out, 1, bias=False)
        for time in range(times):
            for number, width in ((1, wide), (2, wide), (3, n_out)):
                self.add_module(f"norm{number}_{time}", nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, n_in, row, column) into (n, n_out, row / 2, column / 2)."""
        x = self.conv_input(x)
        for time in range(self.times):
            first = time == 0
            around = self.norm_skip(self.skip(x)) if first else x
            x = relu(self._norm(1, time, self.conv1(x)))
            x = relu(self._norm(2, time, conv2d(x, self.conv2.weight, stride=2 if first else 1, padding=1)))
            x = relu(self._norm(3, time, self.conv3(x)) + around)
        return x

    def _norm(self, number: int, time: int, x: Tensor) -> Tensor:
        normed: Tensor = self.get_submodule(f"norm{number}_{time}")(x)
        return normed


class CORnetS(nn.Module):
    """The whole network; its output is what the classifier would be given."""

    def __init__(self) -> None:
        super().__init__()
        v1: dict[str, Any] = {
            "conv1": nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            "norm1": nn.BatchNorm2d(64),
            "nonlin1": nn.ReLU(),
            "pool": nn.MaxPool2d(3, stride=2, padding=1),
            "conv2": nn.Conv2d(64, 64, 3, padding=1, bias=False),
            "norm2": nn.BatchNorm2d(64),
            "nonlin2": nn.ReLU(),
        }
        self.V1 = nn.Sequential()
        for name, module in v1.items():
            self.V1.add_module(name, module)
        self.V2 = RecurrentArea(64, 128, times=2)
        self.V4 = RecurrentArea(128, 256, times=4)
        self.IT = RecurrentArea(256, 512, times=2)
        # Never run: it is here so that every tensor of the file has its place.
        self.decoder = nn.ModuleDict({"linear": nn.Linear(512, 1000)})

    def forward(self, images: Tensor) -> Tensor:
        """Turn (n, 3, size, size) into (n, 512): IT, averaged over positions."""
        return torch.mean(self.IT(self.V4(self.V2(self.V1(images)))), dim=(2, 3))
