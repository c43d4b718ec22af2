"""Simulated THINGS-EEG2 recordings with a planted truth: which encoder, when, where.

The recordings are written in the real raw format (`pipelines.preprocess.things_eeg2`), so everything
downstream runs as it would on downloaded data. The model is, per subject::

    eeg(c, t) = offset(c) + noise(c, t) + sum over images i, sources k of A(c, k) z(k, i) g(k, t - onset(i))

* ``z``: the leading principal components of *one* embedding, its rows centred and of unit length as a cosine sees
  them, each component scaled to unit variance, then rotated at random: every source tells something of every
  component. The rotation is the same for all subjects.
* ``g``: one bump per source. The first peaks at ``latency``, the last ``spread`` later (200 ms); sd ``width`` (25 ms).
  With ``rhythm``, one oscillation per source instead, from ``latency`` on for ``spread`` seconds, each at its own
  frequency in that range and with its own phase.
* ``A``: random weights of each source, per subject, times ``TOPOGRAPHY``: occipital most, parietal some, others none.
* The sum has ``amplitude`` microvolts rms over the planted channels between ``latency`` and ``latency + spread``.
  ``planted=False`` leaves it out and changes nothing else: every other number is drawn from its own seeded stream.
* ``noise``: 1/f in amplitude from 0.1 to 100 Hz, ``noise`` microvolts rms in every channel, 95 % of its power shared
  between channels, as volume conduction does, so that whitening has something to find.
  ``offset``: a constant of up to a millivolt.

Every file says ``simulated``: epochs, runs and reports made from it say so too.

The design is the published one in small: images every 200 ms in sequences of 20; each session shows half of
the training concepts, every image twice, and all test images; a few images once more; targets (code 99999).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pipelines.simulate.raw_file import raw_file
from stores.names import counted, subject_name

__all__ = ["DEMO_CHANNELS", "TOPOGRAPHY", "Simulation", "simulate_things_eeg2"]

SFREQ = 1000
SOA = 200  # samples
# The official 17-channel selection: everything that begins with O or P.
DEMO_CHANNELS = tuple("P7 P5 P3 P1 Pz P2 P4 P6 P8 PO7 PO3 POz PO4 PO8 O1 Oz O2".split())
TOPOGRAPHY = {"O": 1.0, "PO": 0.8, "P": 0.3}  # by the letters of the channel's name

_TARGET = 99999
_SEQUENCE, _PAUSE = 20, 600  # images, samples
_MARGIN = 2000  # samples of rest before and after
_RAMP = 0.05  # s: in which an oscillation rises and falls
_SHARED = 0.95  # of the noise power
_COMMON = 8  # shared noise sources
_SEGMENT = 2**14  # samples of noise made at once; consecutive ones overlap by half


@dataclass(frozen=True, slots=True)
class Simulation:
    """The planted truth.

    Parameters
    ----------
    latency, last_latency : float
        When the first and the last source peak, or an oscillation begins and ends; s after image onset.
    gains : dict of str to float
        How strongly each channel with any effect takes part, in the order of the recording.
    amplitude, noise : float
        Microvolts rms; an amplitude of 0 means nothing was planted.
    subjects : tuple of int
        Subjects written.
    n_events : int
        Image onsets per subject, targets included.
    """

    latency: float
    last_latency: float
    gains: dict[str, float]
    amplitude: float
    noise: float
    subjects: tuple[int, ...]
    n_events: int


def simulate_things_eeg2(
    raw: Path,
    training: Sequence[str],
    test: Sequence[str],
    embedding: Mapping[str, np.ndarray],
    *,
    subjects: Sequence[int] = (1, 2),
    sessions: int = 4,
    test_repetitions: int = 80,
    ch_names: Sequence[str] = DEMO_CHANNELS,
    latency: float = 0.1,
    spread: float = 0.2,
    width: float = 0.025,
    rhythm: tuple[float, float] | None = None,
    amplitude: float = 0.7,
    noise: float = 10.0,
    n_sources: int = 12,
    seed: int = 0,
    planted: bool = True,
) -> Simulation:
    """Write raw recordings of ``subjects`` into ``raw``, and return what was planted.

    Parameters
    ----------
    raw : Path
        Gets ``image_metadata.npy`` and ``sub-XX/ses-XX/raw_eeg_{training,test}.npy``.
    training, test : sequence of str
        Image ids in code order, ``training_images/00001_concept/file.jpg``.
    embedding : mapping of image id to (dim,)
        One row per image: the encoder that the simulated brain resembles.
    subjects : sequence of int
        Subject numbers.
    sessions : int
        Even: sessions 1 and 2 share out the training concepts, 3 and 4 do so again.
    test_repetitions : int
        Over all sessions, at least one in each.
    ch_names : sequence of str
        EEG channels, in recording order; a stim channel is added.
    latency, spread, width : float
        When the first source peaks, how much later the last, and sd of each; s.
    rhythm : tuple of float, optional
        Lowest and highest frequency of oscillations that take the place of the bumps, Hz.
    amplitude, noise : float
        Microvolts rms, see the module.
    n_sources : int
        How many numbers per image reach the sensors.
    seed : int
        Decides everything; each subject, session and split has its own stream.
    planted : bool
        False leaves the response out.

    Raises
    ------
    ValueError
        If an image has no row in ``embedding``, or ``sessions`` is odd.

    Examples
    --------
    >>> import tempfile
    >>> training = [f"training_images/0000{c}_c{c}/c{c}_{i}.jpg" for c in (1, 2) for i in (1, 2)]
    >>> test = ["test_images/00001_t/t_1.jpg"]
    >>> rows = {name: np.random.default_rng(i).normal(size=3) for i, name in enumerate(training + test)}
    >>> truth = simulate_things_eeg2(
    ...     Path(tempfile.mkdtemp()), training, test, rows, subjects=[1], sessions=2, test_repetitions=4, n_sources=2
    ... )
    >>> truth.gains["Oz"], truth.gains["P7"], truth.n_events
    (1.0, 0.3, 20)
    """
    if sessions < 2 or sessions % 2:
        raise ValueError(f"sessions is {sessions}, expected 2, 4, ...: each pair shares out the training concepts")
    missing = [name for name in (*training, *test) if name not in embedding]
    if missing:
        raise ValueError(
            f"{counted(len(missing), 'image has', 'images have')} no row in the embedding, such as {missing[0]}"
        )
    raw.mkdir(parents=True, exist_ok=True)
    _write_metadata(raw / "image_metadata.npy", training, test)
    sources = _sources(embedding, training, test, n_sources, np.random.default_rng((seed, 0)))
    kernels = (
        _kernels(latency, spread, width, n_sources) if rhythm is None else _waves(latency, spread, rhythm, n_sources)
    )
    planted_at = slice(round(latency * SFREQ), round((latency + spread) * SFREQ) + 1)
    strength = amplitude if planted else 0.0
    n_events = 0
    for subject in subjects:
        mixing = _mixing(ch_names, kernels, planted_at, strength, np.random.default_rng((seed, 1, subject)))
        shares = _share_out(training, sessions, np.random.default_rng((seed, 2, subject)))
        n_events = 0
        for session in range(1, sessions + 1):
            of_test = test_repetitions // sessions + (session <= test_repetitions % sessions)
            for part, images, times in (("training", shares[session - 1], 2), ("test", np.arange(len(test)), of_test)):
                stream = (seed, 3, subject, session, int(part == "test"))
                onsets, codes = _schedule(images + 1, max(times, 1), np.random.default_rng((*stream, 0)))
                n_events += len(onsets)
                path = raw / subject_name(subject) / f"ses-{session:02d}" / f"raw_eeg_{part}.npy"
                response = _responses(mixing, sources[part], kernels)
                _write(path, ch_names, onsets, codes, response, kernels.shape[1], noise, stream)
    reached = {name: _gain(name) for name in ch_names if strength and _gain(name)}
    return Simulation(latency, latency + spread, reached, strength, noise, tuple(subjects), n_events)


def _write_metadata(path: Path, training: Sequence[str], test: Sequence[str]) -> None:
    table: dict[str, list[str]] = {}
    for prefix, ids in (("train_img", training), ("test_img", test)):
        folders = [PurePosixPath(name).parent.name for name in ids]
        table[f"{prefix}_concepts"] = folders
        table[f"{prefix}_files"] = [PurePosixPath(name).name for name in ids]
    np.save(path, table, allow_pickle=True)  # type: ignore[arg-type]


def _sources(
    embedding: Mapping[str, np.ndarray], training: Sequence[str], test: Sequence[str], n: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return ``z``, ``(n_sources, n_images)`` per split, uncorrelated and of unit variance over the training images."""
    rows = np.stack([np.asarray(embedding[name], dtype=np.float64).ravel() for name in (*training, *test)])
    rows -= rows.mean(axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    learnt = rows[: len(training)]
    centre = learnt.mean(axis=0)
    _, _, components = np.linalg.svd(learnt - centre, full_matrices=False)
    latent = (rows - centre) @ components[:n].T
    latent /= latent[: len(training)].std(axis=0)
    rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
    z = (latent @ rotation).T
    return {"training": z[:, : len(training)], "test": z[:, len(training) :]}


def _kernels(latency: float, spread: float, width: float, n: int) -> np.ndarray:
    """Return ``g``, ``(n_sources, n_samples)`` from image onset: one bump each, their peaks spread evenly."""
    t = np.arange(round((latency + spread + 4 * width) * SFREQ)) / SFREQ
    peaks = latency + spread * np.arange(n) / max(n - 1, 1)
    return np.exp(-0.5 * ((t - peaks[:, None]) / width) ** 2)


def _waves(latency: float, spread: float, rhythm: tuple[float, float], n: int) -> np.ndarray:
    """Return ``g`` as oscillations, ``(n_sources, n_samples)``, evenly spread in frequency and phase."""
    t = np.arange(round((latency + spread) * SFREQ)) / SFREQ
    inside = np.clip(np.minimum(t - latency, latency + spread - t) / _RAMP, 0, 1)
    frequency = np.linspace(*rhythm, n + 2)[1:-1]
    phase = np.pi * (3 - np.sqrt(5)) * np.arange(n)
    return np.sin(np.pi / 2 * inside) ** 2 * np.cos(2 * np.pi * frequency[:, None] * t + phase[:, None])


def _gain(name: str) -> float:
    return TOPOGRAPHY.get(name.rstrip("0123456789z"), 0.0)


def _mixing(
    ch_names: Sequence[str], kernels: np.ndarray, planted_at: slice, amplitude: float, rng: np.random.Generator
) -> np.ndarray:
    """Return ``A``, ``(n_chans, n_sources)`` in volts, scaled to ``amplitude`` microvolts rms."""
    gains = np.array([_gain(name) for name in ch_names])
    weights = gains[:, None] * rng.normal(size=(len(ch_names), len(kernels)))
    if not gains.any():
        return weights
    power = (weights[gains > 0] ** 2 @ kernels[:, planted_at] ** 2).mean()
    return weights * (1e-6 * amplitude / np.sqrt(power))


def _responses(mixing: np.ndarray, sources: np.ndarray, kernels: np.ndarray) -> Callable[[int], np.ndarray]:
    """Return what gives the response to an image by its code, ``(n_chans, n_samples)`` in volts."""
    return lambda code: (mixing * sources[:, code - 1]) @ kernels


def _share_out(training: Sequence[str], sessions: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the training images of every session: half of the concepts each, all of them in every pair."""
    concepts = [PurePosixPath(name).parent.name for name in training]
    shares = []
    for _ in range(sessions // 2):
        names = rng.permutation(sorted(set(concepts)))
        first = set(names[: (len(names) + 1) // 2])
        mine = np.array([concept in first for concept in concepts])
        shares += [np.flatnonzero(mine), np.flatnonzero(~mine)]
    return shares


def _schedule(codes: np.ndarray, times: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return onsets and codes of a session: every image ``times`` times, one in fifty once more, targets."""
    shown = np.concatenate([rng.permutation(codes) for _ in range(times)])
    extra = rng.choice(codes, max(1, len(codes) // 50), replace=False)
    shown = np.insert(shown, rng.integers(0, len(shown) + 1, len(extra)), extra)
    targets = rng.integers(1, max(len(shown), 2), max(1, len(shown) // 180))
    targets += targets % _SEQUENCE == 0  # never first in a sequence
    shown = np.insert(shown, np.minimum(targets, len(shown)), _TARGET)
    place = np.arange(len(shown))
    # Pauses of odd lengths, so that onsets do not fall on the grid of any lower sampling frequency.
    pauses = np.cumsum(_PAUSE + rng.integers(0, 100, len(shown) // _SEQUENCE + 1))
    return _MARGIN + place * SOA + pauses[place // _SEQUENCE], shown


def _write(
    path: Path,
    ch_names: Sequence[str],
    onsets: np.ndarray,
    codes: np.ndarray,
    responses: Callable[[int], np.ndarray],
    length: int,
    noise: float,
    stream: tuple[int, ...],
) -> None:
    """Write one recording, a segment of noise at a time.

    To it is added ``responses(code)``, ``length`` samples in volts, from every onset on.
    """
    n_chans, n_samples = len(ch_names), int(onsets[-1]) + _MARGIN
    described = {
        "ch_names": [*ch_names, "stim"],
        "ch_types": ["eeg"] * n_chans + ["stim"],
        "sfreq": SFREQ,
        "highpass": 0.01,
        "lowpass": 100,
        "simulated": True,  # said in the file itself, so that it travels: `pipelines.preprocess` hands it on
    }
    with raw_file(path, (n_chans + 1, n_samples), described) as samples:
        samples[-1, onsets] = codes
        for start, block in _noise(n_chans, n_samples, 1e-6 * noise, stream):
            stop = start + block.shape[1]
            for onset, code in zip(*_within(onsets, codes, start - length, stop), strict=True):
                response = responses(code)
                low, high = max(onset, start), min(onset + response.shape[1], stop)
                if low < high:
                    block[:, low - start : high - start] += response[:, low - onset : high - onset]
            samples[:-1, start:stop] = block


def _within(onsets: np.ndarray, codes: np.ndarray, low: int, high: int) -> tuple[list[int], list[int]]:
    """Return the events between two samples that are images."""
    found = slice(*np.searchsorted(onsets, (low, high)))
    images = codes[found] != _TARGET
    return onsets[found][images].tolist(), codes[found][images].tolist()


def _noise(n_chans: int, n_samples: int, rms: float, stream: tuple[int, ...]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield ``(start, (n_chans, n))`` pieces of continuous noise: segments overlapping by half, cross-faded."""
    rng = np.random.default_rng((*stream, 1))
    shared = rng.normal(size=(n_chans, _COMMON))
    shared *= np.sqrt(_SHARED) / np.linalg.norm(shared, axis=1, keepdims=True)
    offset = rng.uniform(-1e-3, 1e-3, size=(n_chans, 1))

    frequency = np.fft.rfftfreq(_SEGMENT, 1 / SFREQ)
    amplitude = np.zeros_like(frequency)
    band = (frequency >= 0.1) & (frequency <= 100)  # the amplifier's
    amplitude[band] = 1 / frequency[band]
    amplitude *= rms * _SEGMENT / np.sqrt(4 * (amplitude**2).sum())

    def segment() -> np.ndarray:
        drawn = rng.standard_normal((2, n_chans + _COMMON, len(frequency)), dtype=np.float32)
        waves = np.fft.irfft(amplitude * (drawn[0] + 1j * drawn[1]), _SEGMENT)
        return shared @ waves[n_chans:] + np.sqrt(1 - _SHARED) * waves[:n_chans]

    half = _SEGMENT // 2
    fade = np.sin(np.pi / 2 * (np.arange(half) + 0.5) / half)  # squares add up to one
    before = segment()
    for start in range(0, n_samples, half):
        after = segment()
        piece = offset + before[:, half:] * fade[::-1] + after[:, :half] * fade
        yield start, piece[:, : n_samples - start]
        before = after
