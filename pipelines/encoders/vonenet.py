"""VOneNets (Dapello, Marques et al., 2020): a fixed model of primate V1 in front of a ResNet-50, AlexNet or CORnet-S.

Written from the paper's description; the names of the tensors are those of the published checkpoints. 256 simple and
256 complex cells, in quadrature pairs of Gabor filters: a simple cell is a rectified filter, a complex one the energy
of its pair. The published models add Poisson-like noise to every response, also in evaluation; here it is left out,
which gives the response around which the noise scatters, and the same row every time.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from pipelines.encoders.cornet import RecurrentArea
from pipelines.encoders.torchvision_import import torchvision

__all__ = ["VOneNet", "alexnet_behind_v1", "cornet_s_behind_v1", "resnet50_behind_v1"]

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


class VOneNet(nn.Module):
    """V1, a mixing layer to 64 channels, and the part of another network that comes behind its first stage.

    Parameters
    ----------
    behind : callable
        Constructs that part: `resnet50_behind_v1`, `alexnet_behind_v1` or `cornet_s_behind_v1`.
    """

    def __init__(self, behind: "Callable[[], Behind]") -> None:
        super().__init__()
        self.vone_block = V1()
        self.bottleneck = nn.Conv2d(SIMPLE + COMPLEX, 64, 1, bias=False)
        self.model = behind()

    def forward(self, images: Tensor) -> Tensor:
        """Turn (n, 3, size, size) into (n, dim)."""
        embedded: Tensor = self.model(self.bottleneck(self.vone_block(images)))
        return embedded


class Behind(nn.Module):
    """Modules by name, some of which are run: the others are here so that every tensor of a file has its place."""

    def __init__(self, run: tuple[str, ...], reduce: Callable[[Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self._run, self._reduce = run, reduce
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        """Turn (n, 64, row, column) into (n, dim)."""
        for name in self._run:
            x = self.get_submodule(name)(x)
        return self._reduce(x)


def _averaged(x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3))


def resnet50_behind_v1() -> Behind:
    """Return the four stages of torchvision's ResNet-50; the last one is averaged over positions."""
    whole = torchvision.models.resnet50(weights=None)
    stages = ("layer1", "layer2", "layer3", "layer4")
    return Behind(stages, _averaged, **{name: whole.get_submodule(name) for name in (*stages, "fc")})


def alexnet_behind_v1() -> Behind:
    """Return AlexNet behind its first convolution, up to fc7 before its rectifier."""
    features = nn.Sequential(
        nn.Conv2d(64, 192, 5, 2, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, 1),
    )
    widths = {1: nn.Linear(256 * 7 * 7, 4096), 4: nn.Linear(4096, 4096), 6: nn.Linear(4096, 1000)}
    classifier = nn.ModuleDict({str(index): layer for index, layer in widths.items()})

    def to_fc7(x: Tensor) -> Tensor:
        fc7: Tensor = classifier["4"](relu(classifier["1"](nn.functional.adaptive_avg_pool2d(x, 7).flatten(1))))
        return fc7

    return Behind(("features",), to_fc7, features=features, classifier=classifier)


def cornet_s_behind_v1() -> Behind:
    """Return V2, V4 and IT of CORnet-S; IT is averaged over positions."""
    areas = {"V2": RecurrentArea(64, 128, 2), "V4": RecurrentArea(128, 256, 4), "IT": RecurrentArea(256, 512, 2)}
    return Behind(tuple(areas), _averaged, **areas, decoder=nn.ModuleDict({"linear": nn.Linear(512, 1000)}))
