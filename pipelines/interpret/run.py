"""One trained run explained: maps per image, occlusion, and the same with random weights.

What is found lies beside the run, in ``runs/RUN/interpret-METHOD/``.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipelines.interpret.bands import BANDS, band_bins, band_contributions
from pipelines.interpret.chain import Chain
from pipelines.interpret.evidence import TOLERANCE, Gradient, average_gradient, retrieval_evidence
from pipelines.interpret.gradcam import column_times, paper_gradcam
from pipelines.interpret.occlusion import occlude
from pipelines.train.data import Test
from pipelines.train.metrics import retrieve
from pipelines.train.restore import TrainedRun
from stores.beside import read_beside, write_beside
from stores.errors import StoreMismatch
from stores.results import read_array

__all__ = ["Recorded", "beside_name", "explain_run", "is_explained"]

MADE = 3  # raised when other numbers come out of the same run


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The test recordings of a subject, as explaining them needs them.

    Parameters
    ----------
    chain : Chain
        The way from the sensors.
    test : Test
        As the run was tested on them.
    times : (n_times,)
        Of the input, s; empty for voxels.
    sfreq : float
        Samples per second.
    sensors : list of str
        Names of all sensors.
    positions : list
        Where they are, m; may be empty.
    groups : mapping of str to rows
        Sensors that belong together.
    """

    chain: Chain
    test: Test
    times: np.ndarray
    sfreq: float
    sensors: list[str]
    positions: list[Any]
    groups: Mapping[str, np.ndarray]


def beside_name(method: str) -> str:
    """Return the name of the folder beside a run."""
    return f"interpret-{method}"


def is_explained(runs: Path, run_id: str, method: str) -> bool:
    """Say whether a run was explained by this version of the method."""
    summary = read_beside(runs, run_id, beside_name(method))
    return summary is not None and summary["made"] == MADE


def explain_run(runs: Path, trained: TrainedRun, recorded: Recorded, gallery: np.ndarray, method: str) -> None:
    """Explain a run and put what is found beside it.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    trained : TrainedRun
        The run, restored.
    recorded : Recorded
        Its test recordings.
    gallery : (n_gallery, n_features)
        Embedding of every test image.
    method : str
        One of `pipelines.interpret.methods.METHODS`.

    Raises
    ------
    StoreMismatch
        If the run, restored, does not see what it saw when it was trained.
    EmbedctlError
        If the method does not fit the brain encoder.
    """
    pictures = trained.picture(gallery)
    with torch.no_grad():
        seen = trained.see(recorded.test.epochs)
    kept = read_array(runs, trained.run_id, "brain")
    if kept.shape != tuple(seen.shape) or np.abs(kept - seen.numpy()).max() > 0.01:  # other devices round differently
        raise StoreMismatch(
            f"run '{trained.run_id}' no longer sees in these epochs and embeddings what it saw in training",
            "train it again",
        )
    own, scores = recorded.test.target, seen.numpy() @ pictures.numpy().T
    gallery_ids = recorded.test.image_ids
    summary: dict[str, Any] = {
        "made": MADE,
        "method": method,
        "image_ids": [gallery_ids[row] for row in own.tolist()],
        "hits": retrieve(scores, own).hits(1).tolist(),
        "times": recorded.times.tolist(),
        "sfreq": recorded.sfreq,
        "sensors": recorded.sensors,
        "positions": recorded.positions,
        "groups": {name: rows.tolist() for name, rows in recorded.groups.items()},
        "notes": list(recorded.chain.notes),
    }
    explain = _gradcam if method == "paper-gradcam" else _attribution
    found, arrays = explain(trained, recorded, pictures, method)
    write_beside(runs, trained.run_id, beside_name(method), summary=summary | found, arrays=arrays)


def _attribution(
    trained: TrainedRun, recorded: Recorded, pictures: torch.Tensor, method: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    chain, own = recorded.chain, torch.from_numpy(recorded.test.target)
    integrated = method == "integrated-gradients"
    x, change = torch.from_numpy(chain.input()), torch.from_numpy(chain.input_change())
    objective = retrieval_evidence(trained.see, pictures, trained.scale)
    gradient = average_gradient(objective, x, change, own, integrated=integrated)
    arrays = _aggregated(gradient, change, recorded)
    maps = arrays.pop("maps")

    fresh = retrieval_evidence(trained.untrained().see, pictures, trained.scale)
    random = _aggregated(average_gradient(fresh, x, change, own, integrated=integrated), change, recorded)
    sanity = _sanity(maps, random.pop("maps"))

    def score(epochs: np.ndarray) -> tuple[np.ndarray, float]:
        with torch.no_grad():
            given = torch.from_numpy(epochs)
            hits = retrieve((trained.see(given) @ pictures.T).numpy(), recorded.test.target).top(1)
            return objective(given, own).numpy(), hits

    explained = float(gradient.explained.mean())
    lost = occlude(chain, recorded.times, recorded.sfreq, recorded.groups, score, explained)
    peak = float(np.abs(maps).max()) or 1.0
    found = {
        "explained": explained,
        "bands": ["offset", *band_bins(len(recorded.times), recorded.sfreq)] if "bands" in arrays else [],
        "steps": gradient.steps,
        "gap": gradient.gap,
        "sanity": sanity,
        "occlusion": [asdict(part) for part in lost],
        "maps_unit": peak,
    }
    if gradient.gap > TOLERANCE:
        how = f"with {gradient.steps} steps" if integrated else "of gradient x input (exact for a linear readout alone)"
        found["notes"] = [
            *recorded.chain.notes,
            f"contributions {how} are {100 * gradient.gap:.0f} % off the evidence they should add up to",
        ]
    kept = {"maps": (maps / peak).astype(np.float16), **arrays}
    return found, kept | {f"untrained_{name}": values for name, values in random.items()}


def _aggregated(gradient: Gradient, change: torch.Tensor, recorded: Recorded) -> dict[str, np.ndarray]:
    """Return maps per image, and their sums over sensors, times and bands; in nats."""
    maps = recorded.chain.contributions(gradient.values.numpy())
    found = {"maps": maps, "sensors": maps.sum(axis=2)}
    if len(recorded.times) > 1:
        found["time"] = maps.sum(axis=1)
        bands = band_contributions(gradient.values.double().numpy(), change.double().numpy(), recorded.sfreq)
        found["bands"] = np.stack(list(bands.values()), axis=1)
    return {name: values.astype(np.float32) for name, values in found.items()}


def _gradcam(
    trained: TrainedRun, recorded: Recorded, pictures: torch.Tensor, method: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    epochs, target = recorded.test.epochs, pictures[torch.from_numpy(recorded.test.target)]
    columns, maps = paper_gradcam(trained.brain, epochs, target)
    _, random = paper_gradcam(trained.untrained().brain, epochs, target)
    bands = _periodogram(maps, recorded.sfreq)
    arrays = {"time": maps, "columns": columns, "bands": np.stack(list(bands.values()), axis=1)}
    found = {
        "bands": list(bands),
        "column_times": column_times(columns.shape[1], recorded.sfreq, float(recorded.times[0])).tolist(),
        "sanity": _sanity(maps, random),
        "occlusion": [],
    }
    return found, arrays


def _periodogram(maps: np.ndarray, sfreq: float) -> dict[str, np.ndarray]:
    """Return each band's share of a map's energy as the paper takes it: 0 Hz is delta, and rectified maps have much."""
    power = np.abs(np.fft.rfft(maps)) ** 2
    frequency = np.fft.rfftfreq(maps.shape[1], 1 / sfreq)
    total = np.maximum(power.sum(axis=1), np.finfo(np.float32).tiny)
    inside = {name: (frequency >= low) & (frequency < high) for name, (low, high) in BANDS.items()}
    return {name: power[:, bins].sum(axis=1) / total for name, bins in inside.items() if bins.any()}


def _sanity(maps: np.ndarray, random: np.ndarray) -> dict[str, float]:
    """Return how much the average map is like that of random weights, and like itself, from other images.

    All are correlations between one half of the images and the other. Over the same images maps are alike for want of
    images: what they share is the noise of the recordings. So even the same map is no more like itself than the
    geometric mean of both reliabilities.

    Parameters
    ----------
    maps, random : (n_images, ...)
        Of the trained and of the untrained network.
    """
    halves = [[values[turn::2].mean(axis=0) for turn in (0, 1)] for values in (maps, random)]
    (one, other), (random_one, random_other) = halves
    return {
        "similarity": (_correlation(one, random_other) + _correlation(other, random_one)) / 2,
        "reliability": _correlation(one, other),
        "random_reliability": _correlation(random_one, random_other),
    }


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of two maps; zero where one is constant."""
    a, b = (values.ravel() - values.mean() for values in (one, other))
    length = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / length if length else 0.0
