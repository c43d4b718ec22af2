"""Evidence by frequency: the same contributions, divided over frequencies instead of times.

For a gradient ``g`` and a change ``d`` over ``n`` samples, Parseval's theorem says::

    sum over t of g(t) d(t) = sum over k of c_k Re(conj(G_k) D_k) / n,    c_k = 1 at 0 and n/2, else 2

so each frequency has its exact part of the evidence, at the full sampling rate and with signs, which
a spectrum of a map of absolute values has not. The 0 Hz part is kept apart: it is an offset, not a slow wave.
"""

import numpy as np

from pipelines.known_datasets import known_datasets

__all__ = ["BANDS", "band_bins", "band_contributions", "keep_band", "stimulation_note"]

BANDS = {
    "delta": (0.0, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 12.0),
    "beta": (12.0, 30.0),
    "gamma": (30.0, np.inf),
}
"""Hz, the upper edge not included; the offset, 0 Hz, is in none."""


def band_bins(n_times: int, sfreq: float) -> dict[str, np.ndarray]:
    """Return, by band, rows of the Fourier transform of a window; bands that it cannot resolve are left out.

    Examples
    --------
    >>> {band: len(bins) for band, bins in band_bins(250, 250.0).items()}
    {'delta': 3, 'theta': 4, 'alpha': 4, 'beta': 18, 'gamma': 96}
    """
    frequency = np.fft.rfftfreq(n_times, 1 / sfreq)
    slack = 1e-9 * sfreq  # a bin at 8 Hz is 8 Hz up to rounding
    found = {
        band: np.flatnonzero((frequency > slack) & (frequency >= low - slack) & (frequency < high - slack))
        for band, (low, high) in BANDS.items()
    }
    return {band: bins for band, bins in found.items() if len(bins)}


def band_contributions(gradient: np.ndarray, change: np.ndarray, sfreq: float) -> dict[str, np.ndarray]:
    """Return the evidence in each band and in the ``offset``, ``(n,)`` each; they add up to all of it.

    Parameters
    ----------
    gradient, change : (n, n_chans, n_times)
        Their product is the contribution of each number.
    sfreq : float
        Samples per second.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> g, d = rng.normal(size=(2, 1, 3, 100))
    >>> bool(np.isclose(sum(band_contributions(g, d, 250.0).values())[0], (g * d).sum()))
    True
    """
    n = gradient.shape[-1]
    product = (np.fft.rfft(gradient).conj() * np.fft.rfft(change)).real.sum(axis=1) / n
    product[:, 1 : (n + 1) // 2] *= 2
    return {"offset": product[:, 0]} | {
        band: product[:, bins].sum(axis=1) for band, bins in band_bins(n, sfreq).items()
    }


def keep_band(x: np.ndarray, band: str, sfreq: float) -> np.ndarray:
    """Return only this band of ``(..., n_times)``.

    The window is continued by its mirror image: a Fourier transform takes it for periodic, and a jump from its end to
    its beginning would have all frequencies.
    """
    n = x.shape[-1]
    spectrum = np.fft.rfft(np.concatenate([x, x[..., ::-1]], axis=-1))
    kept, bins = np.zeros_like(spectrum), band_bins(2 * n, sfreq)[band]
    kept[..., bins] = spectrum[..., bins]
    return np.fft.irfft(kept, 2 * n)[..., :n].astype(x.dtype)


def stimulation_note(dataset: str) -> str:
    """Return what the rate of the images does to the bands; empty where they are far apart.

    Examples
    --------
    >>> stimulation_note("things-eeg2")[:61]
    'images came at 5 Hz: steady-state responses load theta (5 Hz)'
    """
    rate = known_datasets().get(dataset, {}).get("images_per_s")
    if rate is None:
        return ""
    loaded = [
        f"{band} ({harmonic * rate:g} Hz)"
        for band, (low, high) in BANDS.items()
        for harmonic in range(1, 7)
        if low <= harmonic * rate < min(high, 6 * rate)
    ]
    return (
        f"images came at {rate:g} Hz: steady-state responses load {', '.join(loaded)}; what they have in common is not "
        "counted, but responses to the neighbouring images overlap there"
    )
