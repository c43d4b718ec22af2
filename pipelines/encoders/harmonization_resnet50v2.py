"""ResNet50V2 as Keras draws it, which is nobody else's ResNet.

Against ``timm``'s ``resnetv2_50``: a stage strides at its *end*, where the shortcut is then a subsampling of the
un-normalised input; the first and the last convolution of a block carry biases; padding is explicit and zero, also
before the max-pooling; the batch norms use an epsilon of 1.001e-5. Stages are called ``layer1`` to ``layer4``
as in torchvision; Keras calls them conv2 to conv5.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad, relu

from pipelines.encoders.registry import NORMS

__all__ = ["ResNet50V2"]

STAGES = ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1))  # width, blocks, stride of the last block
EPS = 1.001e-5  # keras.applications.resnet


class Block(nn.Module):
    """A bottleneck with the normalisation before each convolution; the first of a stage widens its shortcut."""

    def __init__(self, n_in: int, width: int, stride: int, widen: bool) -> None:
        super().__init__()
        self.stride = stride
        self.preact = nn.BatchNorm2d(n_in, eps=EPS)
        self.conv0 = nn.Conv2d(n_in, 4 * width, 1) if widen else None
        self.conv1 = nn.Conv2d(n_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=EPS)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, eps=EPS)
        self.conv3 = nn.Conv2d(width, 4 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (n, 4 * width, row, column), rows and columns divided by the stride."""
        y = relu(self.preact(x))
        shortcut = self.conv0(y) if self.conv0 is not None else x[..., :: self.stride, :: self.stride]
        y = relu(self.bn1(self.conv1(y)))
        out: Tensor = shortcut + self.conv3(relu(self.bn2(self.conv2(y))))
        return out


class ResNet50V2(nn.Module):
    """``keras.applications.ResNet50V2``: (n, 3, 224, 224) float32 to (n, 2048), or (n, 1000) with its classifier.

    Parameters
    ----------
    n_classes : int
        Outputs of the classifier; 0 for none, and then the output is ``avg_pool``.
    trained_on : str
        How pixels were normalised in training (an entry of `registry.NORMS`). The network is given ImageNet's
        normalisation, as the harmonised one is, and first brings it to what its weights know.

    Examples
    --------
    >>> ResNet50V2(0).eval()(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2048])
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, n_classes: int = 1000, trained_on: str = "imagenet") -> None:
        super().__init__()
        (mean, std), (own_mean, own_std) = (
            torch.tensor(NORMS[name]).view(2, 3, 1, 1) for name in ("imagenet", trained_on)
        )
        self.register_buffer("scale", std / own_std, persistent=False)
        self.register_buffer("shift", (mean - own_mean) / own_std, persistent=False)
        self.stem = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        n_in = 64
        for number, (width, n_blocks, stride) in enumerate(STAGES, 1):
            strides = [1] * (n_blocks - 1) + [stride]
            blocks = [Block(4 * width if i else n_in, width, s, widen=not i) for i, s in enumerate(strides)]
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
            n_in = 4 * width
        self.norm = nn.BatchNorm2d(n_in, eps=EPS)
        self.reset_classifier(n_classes)

    def reset_classifier(self, n_classes: int) -> None:
        """Replace the classifier by one of ``n_classes`` outputs, or by none for 0."""
        self.fc = nn.Linear(4 * STAGES[-1][0], n_classes) if n_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean over positions of the last map, through the classifier where there is one."""
        x = self.stem(x * self.scale + self.shift)
        x = max_pool2d(pad(x, (1, 1, 1, 1)), 3, stride=2)  # zeros win over negative values, as in Keras
        for number in range(1, 5):
            x = getattr(self, f"layer{number}")(x)
        out: Tensor = self.fc(relu(self.norm(x)).mean((2, 3)))
        return out
