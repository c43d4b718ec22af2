"""The interpretation of the paper (Rajabi et al., 2025, App. G): its Grad-CAM maps of NICE.

Objective: the cosine similarity of the brain embedding with the right image. Activations: the 1 x 1 convolution behind
the spatial filters, 40 features at 36 places. ``map = ReLU(sum over features of mean(gradient) * activation)``, then
stretched to all channels and samples by bicubic interpolation, and each divided by its highest value. What is wrong
with that is said by `statement`.

Left out: the paper counts when maps of 200 images exceed their 99th percentile, where here they are averaged, and tests
bands between seeds.
"""

import numpy as np
import torch
from torch.nn import functional

from pipelines.train.brain_encoders.nice import NICE, STEP, TAPS, WINDOW
from stores.errors import EmbedctlError

__all__ = ["column_times", "paper_gradcam", "statement", "stretched_times"]

_REACH = TAPS + WINDOW - 1  # samples that one column sees


def paper_gradcam(brain: torch.nn.Module, epochs: torch.Tensor, target: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the paper's maps.

    Parameters
    ----------
    brain : NICE
        The brain encoder, in evaluation mode.
    epochs : (n, n_chans, n_times)
        Before its fixed first step.
    target : (n, dim)
        Unit embedding of the right image.

    Returns
    -------
    columns : (n, n_columns)
        The map at its own resolution, on the scale of the stretched one.
    maps : (n, n_times)
        Stretched as in the paper, up to one; every channel has the same.

    Raises
    ------
    EmbedctlError
        If the brain encoder is not NICE.
    """
    if not isinstance(brain, NICE):
        raise EmbedctlError(
            f"paper-gradcam is defined for NICE, this run has {type(brain).__name__}",
            "train it: embedctl train --brain eeg --brain-encoder nice; or use another --method",
        )
    kept: list[torch.Tensor] = []

    def keep(module: torch.nn.Module, given: object, activation: torch.Tensor) -> torch.Tensor:
        kept.append(activation.detach().view(len(epochs), -1, activation.shape[-1]).requires_grad_())
        return kept[0].view_as(activation)

    hook = brain.mix.register_forward_hook(keep)
    try:
        z = brain(NICE.prepare(epochs))
    finally:
        hook.remove()
    centred = z - z.mean(dim=1, keepdim=True)
    similarity = (functional.normalize(centred, dim=1) * target).sum()
    (gradient,) = torch.autograd.grad(similarity, kept[0])
    columns = functional.relu((gradient.mean(dim=1, keepdim=True) * kept[0]).sum(dim=2)).detach()
    stretched = functional.interpolate(
        columns[:, None, None], size=(1, epochs.shape[-1]), mode="bicubic", align_corners=False
    )
    maps = stretched[:, 0, 0]
    highest = maps.amax(dim=1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return (columns / highest).numpy(), (maps / highest).numpy()


def column_times(n_columns: int, sfreq: float, first: float = 0.0) -> np.ndarray:
    """Return the middle of what each column sees, s.

    Examples
    --------
    >>> column_times(36, 250.0)[[0, -1]].round(3).tolist()
    [0.148, 0.848]
    """
    return first + (np.arange(n_columns) * STEP + (_REACH - 1) / 2) / sfreq


def stretched_times(n_columns: int, n_times: int, sfreq: float, first: float = 0.0) -> np.ndarray:
    """Return where the paper's stretching puts the middle of each column, s.

    Examples
    --------
    >>> stretched_times(36, 250, 250.0)[[0, -1]].round(3).tolist()
    [0.012, 0.984]
    """
    return first + ((np.arange(n_columns) + 0.5) * n_times / n_columns - 0.5) / sfreq


def statement(n_columns: int, n_times: int, sfreq: float, first: float = 0.0) -> list[str]:
    """Say what is not valid about these maps."""
    true = 1000 * column_times(n_columns, sfreq, first)
    put = 1000 * stretched_times(n_columns, n_times, sfreq, first)
    half = 500 * _REACH / sfreq
    slope = (true[-1] - true[0]) / (put[-1] - put[0]) if n_columns > 1 else 0.0
    return [
        f"paper-gradcam puts evidence at the wrong time: its {n_columns} columns see the recording around "
        f"{true[0]:.0f} to {true[-1]:.0f} ms (each {half:.0f} ms to either side) but are drawn at {put[0]:.0f} to "
        f"{put[-1]:.0f} ms: what is drawn at t lies at {true[0] - slope * put[0]:.0f} ms + {slope:.2f} t",
        f"paper-gradcam has no valid spectrum: {n_columns} points end at {sfreq * n_columns / n_times / 2:.0f} Hz, so "
        "gamma and most of beta are left by the interpolation; maps are never negative, so their mean counts as delta",
        "paper-gradcam has no topography: its layer lies behind the spatial filters, all channels get the same map",
        "use --method integrated-gradients for evidence in time, frequency and space",
    ]
