"""EEGConformer (https://doi.org/10.1109/TNSRE.2022.3230250): convolutions, then attention over time.

The sizes are those Rajabi et al. ran, not the published ones: they shrank the network, and read the embedding off the
log-probabilities of 1,024 classes that it has no labels for.
"""

import torch
from torch import nn
from torch.nn import functional

from stores.errors import EmbedctlError

__all__ = ["EEGConformer"]

FILTERS = 40
TAPS = 10  # samples of the temporal filters
WINDOW, STEP = 25, 5  # samples averaged, and between windows
DEPTH = 2
CLASSES = 1024


class EEGConformer(nn.Module):
    """Temporal and spatial filters, window averages, two attention blocks, log-probabilities, a linear map.

    Parameters
    ----------
    n_chans, n_times : int
        Shape of an epoch.
    dim : int
        Width of the embedding space.

    Raises
    ------
    EmbedctlError
        If an epoch is shorter than one window with its filter, 34 samples.

    Examples
    --------
    >>> EEGConformer(63, 250, 24)(torch.randn(2, 63, 250)).shape
    torch.Size([2, 24])
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__()
        n_windows = (n_times - TAPS + 1 - WINDOW) // STEP + 1
        if n_windows < 1:
            raise EmbedctlError(
                f"EEGConformer needs epochs of {TAPS + WINDOW - 1} samples, these have {n_times}",
                "choose a longer window in the recipe, or another brain encoder",
            )
        self.patches = nn.Sequential(
            nn.Conv2d(1, FILTERS, (1, TAPS)),
            nn.Conv2d(FILTERS, FILTERS, (n_chans, 1)),
            nn.BatchNorm2d(FILTERS),
            nn.ELU(),
            nn.AvgPool2d((1, WINDOW), (1, STEP)),
            nn.Dropout(0.25),
            nn.Conv2d(FILTERS, FILTERS, 1),
        )
        self.blocks = nn.Sequential(*(_Block() for _ in range(DEPTH)))
        self.classify = nn.Sequential(
            nn.Linear(FILTERS * n_windows, 256),
            nn.ELU(),
            nn.Dropout(0.5),
            nn.Linear(256, 32),
            nn.ELU(),
            nn.Dropout(0.3),
            nn.Linear(32, CLASSES),
            nn.LogSoftmax(dim=1),
        )
        self.project = nn.Linear(CLASSES, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``."""
        x = self.patches(x[:, None]).squeeze(2).transpose(1, 2)  # (n_epochs, n_windows, FILTERS)
        out: torch.Tensor = self.project(self.classify(self.blocks(x).flatten(1)))
        return out


class _Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``, with one head and dropout 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.feed_norm = nn.LayerNorm(FILTERS), nn.LayerNorm(FILTERS)
        self.query, self.key, self.value, self.out = (nn.Linear(FILTERS, FILTERS) for _ in range(4))
        self.feed = nn.Sequential(
            nn.Linear(FILTERS, 4 * FILTERS), nn.GELU(), nn.Dropout(0.5), nn.Linear(4 * FILTERS, FILTERS)
        )
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x)
        seen = functional.softmax(self.query(y) @ self.key(y).transpose(1, 2) / FILTERS**0.5, dim=-1)
        x = x + self.dropout(self.out(self.dropout(seen) @ self.value(y)))
        out: torch.Tensor = x + self.dropout(self.feed(self.feed_norm(x)))
        return out
