"""CORnets (Kubilius, Schrimpf et al., 2018): four areas named after the ventral stream.

Written from the paper's description; the names of the tensors are those of the published checkpoints. The output of
each is what its classifier would be given: IT, averaged over positions.

* Z: an area is one convolution, a rectifier and a pooling.
* R and RT: an area adds its own last output to its input, five times over. In R an area sees what the one before it
  puts out at the same time step, in RT what it put out at the last one, as signals do that take a step from area to
  area.
* S: an area runs the same three convolutions ``times`` times over its own output, with batch norms of its own for each
  time; the first time halves the resolution.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, relu

__all__ = ["CORnetR", "CORnetS", "CORnetZ", "RecurrentArea"]

WIDTHS = {"V1": 64, "V2": 128, "V4": 256, "IT": 512}
STEPS = 5  # of R and RT

WIDENING = 4  # inside an area, the middle convolution has four times its channels


def _averaged(x: Tensor) -> Tensor:
    return torch.mean(x, dim=(2, 3))


class FeedForwardArea(nn.Module):
    """An area of Z."""

    def __init__(self, n_in: int, n_out: int, side: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, side, stride, side // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, n_in, row, column) into (n, n_out, row / 2, column / 2); V1, whose stride is 2, into quarters."""
        return max_pool2d(relu(self.conv(x)), 3, 2, 1)


class AddingArea(nn.Module):
    """An area of R and RT."""

    def __init__(self, n_in: int, n_out: int, side: int, stride: int) -> None:
        super().__init__()
        self.conv_input = nn.Conv2d(n_in, n_out, side, stride, side // 2)
        self.norm_input = nn.GroupNorm(32, n_out)
        self.conv1 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(32, n_out)

    def enter(self, x: Tensor) -> Tensor:
        """Bring what the area before puts out to this one's channels and resolution."""
        entered: Tensor = relu(self.norm_input(self.conv_input(x)))
        return entered

    def forward(self, entered: Tensor, last: Tensor | None = None) -> Tensor:
        """Return the next output, from what entered and the last output."""
        x: Tensor = relu(self.norm1(self.conv1(entered if last is None else entered + last)))
        return x


class CORnetZ(nn.Module):
    """Areas in a row."""

    def __init__(self) -> None:
        super().__init__()
        n_in = 3
        for name, n_out in WIDTHS.items():
            side, stride = (7, 2) if name == "V1" else (3, 1)
            self.add_module(name, FeedForwardArea(n_in, n_out, side, stride))
            n_in = n_out
        self.decoder = nn.ModuleDict({"linear": nn.Linear(512, 1000)})  # never run, as below

    def forward(self, images: Tensor) -> Tensor:
        """Turn (n, 3, size, size) into (n, 512)."""
        x = images
        for name in WIDTHS:
            x = self.get_submodule(name)(x)
        return _averaged(x)


class CORnetR(nn.Module):
    """Areas that add their own last output to their input.

    Parameters
    ----------
    delayed : bool
        Whether a signal takes a time step from area to area (RT), or none (R).
    """

    def __init__(self, delayed: bool) -> None:
        super().__init__()
        self.delayed = delayed
        n_in = 3
        for name, n_out in WIDTHS.items():
            side, stride = (7, 4) if name == "V1" else (3, 2)
            self.add_module(name, AddingArea(n_in, n_out, side, stride))
            n_in = n_out
        self.decoder = nn.ModuleDict({"linear": nn.Linear(512, 1000)})  # never run, as below

    def forward(self, images: Tensor) -> Tensor:
        """Turn (n, 3, size, size) into (n, 512)."""
        areas: dict[str, Any] = {name: self.get_submodule(name) for name in WIDTHS}
        v1 = areas.pop("V1")
        image = v1.enter(images)
        outputs = {"V1": v1(image)}
        before = "V1"
        for name, area in areas.items():  # at the first step, nothing has reached the areas behind V1
            outputs[name] = area(torch.zeros_like(area.enter(outputs[before])))
            before = name
        for _ in range(STEPS - 1):
            seen = dict(outputs) if self.delayed else outputs
            outputs["V1"] = v1(image, outputs["V1"])
            before = "V1"
            for name, area in areas.items():
                outputs[name] = area(area.enter(seen[before]), outputs[name])
                before = name
        return _averaged(outputs["IT"])


class RecurrentArea(nn.Module):
    """V2, V4 or IT of S.

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
    """Areas that run several times before the next one does."""

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
        """Turn (n, 3, size, size) into (n, 512)."""
        return _averaged(self.IT(self.V4(self.V2(self.V1(images)))))
