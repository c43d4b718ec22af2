"""The contrastive loss between brain embeddings and image embeddings."""

import torch
from torch.nn import functional

__all__ = ["info_nce", "unit"]


def unit(x: torch.Tensor) -> torch.Tensor:
    """Centre every vector over its own features, then scale it to length one.

    A constant vector has no direction and becomes zero. The dot product of two such vectors is the
    correlation of their features.

    Examples
    --------
    >>> unit(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    tensor([[-0.7071,  0.7071],
            [ 0.0000,  0.0000]])
    """
    return functional.normalize(x - x.mean(dim=-1, keepdim=True), dim=-1)


def info_nce(
    brain: torch.Tensor, image: torch.Tensor, scale: torch.Tensor | float, shown: torch.Tensor | None = None
) -> torch.Tensor:
    """Symmetric InfoNCE: tell each brain embedding's own image from the others in the batch, and back.

    With both sides through `unit`, ``s = scale * brain @ image.T`` and
    ``loss = -(mean log softmax_rows(s)[i, i] + mean log softmax_columns(s)[i, i]) / 2``.

    Parameters
    ----------
    brain : (n, dim)
        Brain embeddings.
    image : (n, dim)
        Embeddings of the images shown, row by row.
    scale : scalar
        Inverse temperature.
    shown : (n,)
        Which image each row shows. Two rows with the same image (several trials, several subjects) are
        never negatives of each other: they are left out of each other's denominators.

    Returns
    -------
    scalar
        The loss in nats; chance is ``log(n)``.

    Examples
    --------
    >>> round(info_nce(torch.zeros(4, 8), torch.randn(4, 8), 10.0).item(), 4)  # log(4)
    1.3863
    """
    logits = scale * (unit(brain) @ unit(image).T)
    own = torch.arange(len(logits), device=logits.device)
    if shown is not None:
        same = (shown[:, None] == shown[None, :]) & (own[:, None] != own[None, :])
        logits = logits.masked_fill(same, float("-inf"))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
