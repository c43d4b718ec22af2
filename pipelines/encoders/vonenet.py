"""VOneResNet-50 (Dapello, Marques et al., 2020): a fixed model of primate V1 in front of a ResNet-50.

Written from the paper's description; the names of the tensors are those of the published checkpoint. 256 simple and
256 complex cells, in quadrature pairs of Gabor filters: a simple cell is a rectified filter, a complex one the energy
of its pair. The published model adds Poisson-like noise to every response, also in evaluation; here it is left out,
which gives the response around which the noise scatters, and the same row every time.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from pipelines.encoders.torchvision_import import torchvision

__all__ = ["VOneResNet50"]

SIMPLE, COMPLEX = 256, 256
GAIN = 25.0  # spikes per second: ``k_exc`` of the published model
SIDE, STRIDE = 25, 4  # of a filter, in pixels


class V1(nn.Module):
    """Simple and complex cells."""

    def __init__(self) -> None:
        super().__init__()
        for phase in ("simple_conv_q0", "simple_conv_q1"):
            self.add_module(phase, nn.Conv2d(3, SIMPLE + COMPLEX, SIDE, STRIDE, SIDE // 2, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        """Turn (n, 3, size, size) into (n, 512, size / 4, size / 4), none of them negative."""
        even, odd = (self._filtered(images, phase) for phase in ("simple_conv_q0", "simple_conv_q1"))
        energy = torch.sqrt(even[:, SIMPLE:] ** 2 + odd[:, SIMPLE:] ** 2) / 2**0.5
        return GAIN * torch.cat([relu(even[:, :SIMPLE]), energy], dim=1)

    def _filtered(self, images: Tensor, phase: str) -> Tensor:
        return conv2d(images, self.get_submodule(phase).weight, stride=STRIDE, padding=SIDE // 2)  # type: ignore[arg-type]


class VOneResNet50(nn.Module):
    """V1, a mixing layer, and the four stages of torchvision's ResNet-50."""

    def __init__(self) -> None:
        super().__init__()
        self.vone_block = V1()
        self.bottleneck = nn.Conv2d(SIMPLE + COMPLEX, 64, 1, bias=False)
        whole = torchvision.models.resnet50(weights=None)
        self.model = nn.Module()
        # The classifier is never run: it is here so that every tensor of the file has its place.
        for name in ("layer1", "layer2", "layer3", "layer4", "fc"):
            self.model.add_module(name, whole.get_submodule(name))

    def forward(self, images: Tensor) -> Tensor:
        """Turn (n, 3, size, size) into (n, 2048): the last stage, averaged over positions."""
        x: Tensor = self.bottleneck(self.vone_block(images))
        for number in (1, 2, 3, 4):
            x = self.model.get_submodule(f"layer{number}")(x)
        return x.mean(dim=(2, 3))
