"""ATM-S (https://arxiv.org/abs/2403.07721): attention among channels, then the filters and the head of NICE.

Written anew from its description and its MIT-licensed code. Two of its habits are kept, since the published numbers
have them: a subject token stands before the channels, and as many tokens as there are channels go on, so that what
the last channel says is heard through attention alone. The published module has ten subject tokens and a shared one;
a brain encoder here belongs to one subject and has one.
"""

import torch
from torch import nn
from torch.nn import functional

from pipelines.train.brain_encoders.nice import NICE
from stores.errors import EmbedctlError

__all__ = ["ATMS", "ATMSLinear"]

HEADS = 4
WIDTH = 256  # of the feed-forward part
DROPOUT = 0.25


class ATMS(nn.Module):
    """A linear map over time, one attention block over channels, then `NICE`.

    Parameters
    ----------
    n_chans, n_times : int
        Shape of an epoch.
    dim : int
        Width of the embedding space.

    Raises
    ------
    EmbedctlError
        If an epoch is shorter than NICE can take, 75 samples.

    Examples
    --------
    >>> ATMS(63, 250, 24)(torch.randn(2, 63, 250)).shape
    torch.Size([2, 24])
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__()
        if n_times < 75:
            raise EmbedctlError(
                f"ATM-S needs epochs of 75 samples, these have {n_times}",
                "choose a longer window in the recipe, or another brain encoder",
            )
        self.embed = nn.Linear(n_times, n_times)
        self.subject = nn.Parameter(torch.randn(1, n_times))
        self.dropout = nn.Dropout(DROPOUT)
        inner = n_times // HEADS * HEADS
        self.query, self.key, self.value = (nn.Linear(n_times, inner) for _ in range(3))
        self.out = nn.Linear(inner, n_times)
        self.feed = nn.Sequential(
            nn.Linear(n_times, WIDTH), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, n_times), nn.Dropout(DROPOUT)
        )
        self.norm, self.feed_norm, self.last_norm = (nn.LayerNorm(n_times) for _ in range(3))
        self.trunk = NICE(n_chans, n_times, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``."""
        n_epochs, n_chans, _ = x.shape
        tokens = torch.cat([self.subject.expand(n_epochs, 1, -1), self.embed(x)], dim=1)
        tokens = self.dropout(tokens)
        tokens = self.norm(tokens + self.dropout(self._attend(tokens)))
        tokens = self.last_norm(self.feed_norm(tokens + self.feed(tokens)))
        out: torch.Tensor = self.trunk(NICE.prepare(tokens[:, :n_chans]))
        return out

    def _attend(self, tokens: torch.Tensor) -> torch.Tensor:
        parts = (
            layer(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        query, key, value = parts  # (n_epochs, HEADS, n_tokens, inner / HEADS)
        seen = functional.softmax(query @ key.transpose(2, 3) / query.shape[-1] ** 0.5, dim=-1)
        out: torch.Tensor = self.out((self.dropout(seen) @ value).transpose(1, 2).flatten(2))
        return out


class ATMSLinear(ATMS):
    """ATM-S with one more linear map at its end, as in AlignVis.

    Examples
    --------
    >>> round(sum(p.numel() for p in ATMSLinear(63, 250, 768).parameters()) / 1e6, 2)
    2.84
    """

    def __init__(self, n_chans: int, n_times: int, dim: int) -> None:
        super().__init__(n_chans, n_times, dim)
        self.represent = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(n_epochs, n_chans, n_times)`` to ``(n_epochs, dim)``."""
        out: torch.Tensor = self.represent(super().forward(x))
        return out
