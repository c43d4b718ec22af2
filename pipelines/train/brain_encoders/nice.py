"""NICE (https://arxiv.org/abs/2308.13234), the brain encoder of most of the literature, rewritten to be fast.

The published network convolves every channel over time with 25 taps, then averages windows of 51 samples in
steps of 5, and nothing non-linear lies between the two. So the average can be taken first, once for all passes,
and the convolution only where a window starts. Both convolutions and the first batch normalisation then become
three matrix products per batch. It is the same function of the same parameters, several times cheaper; the published
form lives in the tests, which hold the two together.
"""

import torch
from torch import nn
from torch.nn import functional

from pipelines.train.brain_encoders.eegproject import Head
from stores.errors import EmbedctlError

__all__ = ["NICE", "NICELinear"]

FILTERS = 40
TAPS = 25  # samples of the temporal filters
WINDOW = 51  # samples averaged
STEP = 5  # samples between windows


class NICE(nn.Module):
    """Temporal filters, window averages, spatial filters, then a `Head` with dropout 0.5.

    It takes epochs that went through `prepare`. Weights start from torch's defaults, as in AlignVis, not from
    N(0, 0.02) as in the original repository.

    Parameters
    ----------
    n_chans, n_times : int
        Shape of an epoch, before `prepare`.
    dim : int
        Width of the embedding space.

    Raises
    ------
    EmbedctlError
        If an epoch is shorter than one window with its filter, 75 samples.

    Examples
    --------
    >>> sum(p.numel() for p in NICE(63, 250, 768).parameters())
    1802496
    >>> NICE(63, 250, 768)(NICE.prepare(torch.randn(2, 63, 250))).shape
    torch.Size([2, 768])
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__()
        n_windows = (n_times - TAPS + 1 - WINDOW) // STEP + 1
        if n_windows < 1:
            raise EmbedctlError(
                f"NICE needs epochs of {TAPS + WINDOW - 1} samples, these have {n_times}",
                "choose a longer window in the recipe, or another brain encoder",
            )
        self.temporal = nn.Linear(TAPS, FILTERS)
        self.temporal_norm = nn.BatchNorm1d(FILTERS)
        self.spatial = nn.Linear(n_chans * FILTERS, FILTERS)
        self.spatial_norm = nn.BatchNorm1d(FILTERS)
        self.dropout = nn.Dropout(0.5)
        self.mix = nn.Linear(FILTERS, FILTERS)
        self.head = Head(n_windows * FILTERS, dim, dropout=0.5)

    @staticmethod
    def prepare(epochs: torch.Tensor) -> torch.Tensor:
        """Average windows of 51 samples around every sample that has one: ``n_times - 50`` remain."""
        return functional.avg_pool1d(epochs, WINDOW, stride=1) if epochs.shape[-1] >= WINDOW else epochs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_chans, n_times - 50)`` to ``(n_epochs, dim)``."""
        n_epochs, n_chans, _ = x.shape
        # One row per epoch, window and channel: the samples that the temporal filters see there.
        patches = x.unfold(-1, TAPS, STEP).transpose(1, 2).reshape(-1, TAPS)
        weight, bias = self._folded_temporal(patches)
        x = functional.elu(functional.linear(patches, weight, bias), inplace=True)
        x = self.spatial(x.view(-1, n_chans * FILTERS))
        x = self.dropout(functional.elu(self.spatial_norm(x)))
        out: torch.Tensor = self.head(self.mix(x).view(n_epochs, -1))
        return out

    def _folded_temporal(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Fold the batch normalisation that follows the temporal filters into their weights.

        What a linear filter puts out has mean ``w @ mean(patches) + b`` and variance ``w @ cov(patches) @ w``, so the
        statistics come from a 25 x 25 matrix instead of from the largest tensor of the network.
        """
        norm, weight = self.temporal_norm, self.temporal.weight
        assert norm.running_mean is not None and norm.running_var is not None
        assert norm.momentum is not None and norm.num_batches_tracked is not None
        if self.training:
            n = len(patches)
            centre = patches.mean(dim=0)
            centred = patches - centre
            cov = (centred.T @ centred) / n
            mean = weight @ centre + self.temporal.bias
            var = ((weight @ cov) * weight).sum(dim=1)
            with torch.no_grad():
                norm.running_mean.lerp_(mean, norm.momentum)
                norm.running_var.lerp_(var * (n / (n - 1)), norm.momentum)
                norm.num_batches_tracked.add_(1)
        else:
            mean, var = norm.running_mean, norm.running_var
        gain = norm.weight * torch.rsqrt(var + norm.eps)
        return weight * gain[:, None], (self.temporal.bias - mean) * gain + norm.bias


class NICELinear(NICE):
    """NICE with one more linear map at its end, as in AlignVis: the NICE of Rajabi et al.

    Examples
    --------
    >>> sum(p.numel() for p in NICELinear(63, 250, 768).parameters())
    2393088
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__(n_chans, n_times, dim)
        self.represent = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_chans, n_times - 50)`` to ``(n_epochs, dim)``."""
        out: torch.Tensor = self.represent(super().forward(x))
        return out
