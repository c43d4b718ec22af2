"""From what a layer puts out to one vector per image.

A layer puts out a vector (n, dim), tokens (n, token, dim) or a map (n, dim, row, column).
"""

import torch
from torch import Tensor

from stores.errors import EmbedctlError

__all__ = ["default_pooling", "pool", "poolings"]


def default_pooling(x: Tensor, has_cls: bool, convention: str = "") -> str:
    """Return the pooling of a layer that was asked for without one.

    A vector needs none, a map is averaged (``gap``); tokens follow the encoder's own ``convention`` where that is
    ``cls`` or ``mean``, else the CLS token stands for the image where there is one.

    Examples
    --------
    >>> default_pooling(torch.zeros(2, 197, 768), True), default_pooling(torch.zeros(2, 64, 7, 7), False)
    ('cls', 'gap')
    """
    if x.ndim == 2:
        return ""
    if x.ndim == 4:
        return "gap"
    return convention if convention in ("cls", "mean") else "cls" if has_cls else "mean"


def poolings(n_axes: int, has_cls: bool) -> tuple[str, ...]:
    """Return how the output of a layer can be pooled, by its number of axes.

    Examples
    --------
    >>> poolings(3, has_cls=False), poolings(4, has_cls=True)
    (('mean', 'tokens', 'gap', 'flatten'), ('mean', 'tokens', 'gap', 'flatten'))
    """
    if n_axes not in (3, 4):
        return ("flatten",)
    return (
        ("cls", "mean", "cls+mean", "tokens", "gap", "flatten")
        if n_axes == 3 and has_cls
        else ("mean", "tokens", "gap", "flatten")
    )


def pool(x: Tensor, pooling: str, n_prefix: int = 0, has_cls: bool = True) -> tuple[Tensor, tuple[int, int] | None]:
    """Reduce the output of a layer to one row per image.

    Parameters
    ----------
    x : (n, dim), (n, token, dim) or (n, dim, row, column)
        Output of a layer. The result never shares memory with it: the next layer may work in place.
    pooling : str
        ``cls``: the first token. ``mean`` and ``gap``: the mean over patch tokens (prefix tokens left out) or over
        positions. ``cls+mean``: the two side by side. ``tokens``: all tokens, prefix tokens included, one after
        another. ``flatten``: every number in memory order (channel, row, column for a map).
        Empty: a vector as it is.
    n_prefix : int
        Tokens before the first patch (CLS and registers).
    has_cls : bool
        Whether the first of them is a CLS token.

    Returns
    -------
    tuple of (n, dim) float32 and (token, dim) or None
        The rows, and the shape of one row for ``tokens``.

    Raises
    ------
    EmbedctlError
        If the layer's output cannot be pooled so.

    Examples
    --------
    >>> tokens = torch.arange(6.0).view(1, 3, 2)
    >>> pool(tokens, "cls", n_prefix=1)[0].tolist(), pool(tokens, "mean", n_prefix=1)[0].tolist()
    ([[0.0, 1.0]], [[3.0, 4.0]])
    """
    known = poolings(x.ndim, has_cls and n_prefix > 0)
    if pooling not in known and (pooling or x.ndim != 2):
        raise EmbedctlError(
            f"a layer that puts out {tuple(x.shape[1:])} per image has no pooling '{pooling}'",
            f"it has {', '.join(known)}" + (", or none at all" if x.ndim == 2 else ""),
        )
    rows, token_shape = x, None
    if pooling == "flatten":
        rows = x.flatten(1)
    elif x.ndim == 3:
        rows, token_shape = _pool_tokens(x, pooling, n_prefix)
    elif x.ndim == 4:
        rows, token_shape = _pool_map(x, pooling)
    return rows.to(torch.float32, copy=True).contiguous(), token_shape


def _pool_tokens(x: Tensor, pooling: str, n_prefix: int) -> tuple[Tensor, tuple[int, int] | None]:
    if pooling == "cls":
        return x[:, 0], None
    if pooling == "tokens":
        return x.flatten(1), (x.shape[1], x.shape[2])
    mean = x[:, n_prefix:].mean(1)
    return (torch.cat([x[:, 0], mean], 1) if pooling == "cls+mean" else mean), None


def _pool_map(x: Tensor, pooling: str) -> tuple[Tensor, tuple[int, int] | None]:
    if pooling == "tokens":
        return x.flatten(2).transpose(1, 2).flatten(1), (x.shape[2] * x.shape[3], x.shape[1])
    return x.mean((2, 3)), None
