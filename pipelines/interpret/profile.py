"""One embedding and one subject: when, at which frequencies and where, seeds averaged, tested over images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.interpret.bands import stimulation_note
from pipelines.interpret.clusters import LEVEL, Cluster, clusters
from pipelines.interpret.gradcam import statement
from pipelines.interpret.over_subjects import is_found
from pipelines.interpret.run import beside_name
from pipelines.train.origin import marked
from pipelines.train.statistics import holm
from stores.beside import read_array_beside, read_beside

__all__ = ["Profile", "Table", "profile_of", "share"]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Evidence per image, in nats, seeds averaged.

    Parameters
    ----------
    image_ids : list of str
        The test images.
    time : (n_images, n_times)
        Over time; no columns for voxels.
    bands : dict of str to (n_images,)
        In each band, and in the ``offset``.
    groups : dict of str to (n_images,)
        In groups of sensors.
    found : (n_images,)
        Whether the right image came first, averaged over seeds.
    """

    image_ids: list[str]
    time: np.ndarray
    bands: dict[str, np.ndarray]
    groups: dict[str, np.ndarray]
    found: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What was found for one embedding and one subject.

    Every share is of unit mass: absolute values add up to one. Signs stay: where the mean over images is below zero,
    the recording speaks against the right image.

    Parameters
    ----------
    condition : dict
        What is the same for all runs that can be compared.
    embedding, aligned_by, weights : str
        Which embedding.
    subject, n_seeds, n_images : int
        Whose, of how many runs and images.
    top1 : float
        Mean over the seeds.
    evidence : float
        Mean ``e(x) - e(reference)``, nats; for paper-gradcam 0.
    p : float or None
        That it is above zero: one-sided t-test over images; None for paper-gradcam, whose maps are never negative.
    is_found : bool
        Whether the embedding's evidence is shown to be above zero: `pipelines.interpret.over_subjects.is_found`.
    times, time : (n_times,)
        Seconds, and the share at each.
    bands : dict of str to float
        Share in each band, and in the ``offset``.
    sensors : dict of str to float
        Share at each sensor.
    positions : list
        Where the sensors are.
    groups : dict of str to float
        Share of groups of sensors.
    windows : list of Cluster
        Times at which the images' evidence is above zero.
    band_p, sensor_p, group_p : dict of str to float
        That the evidence of a band, a sensor, a group is above zero: t-test over images, Holm-corrected.
    peak, half : float or None
        When evidence is highest, and from when on half of it has come; s.
    corrected_peak : float or None
        For paper-gradcam: where the peak lies in the recording.
    occlusion : list of dict
        See `pipelines.interpret.occlusion`.
    similarity, reliability, random_reliability : float
        Correlation of the map with that of random weights, of the map with itself, and of that of random weights with
        itself, between halves of the images.
    untrained_windows, untrained_bands, untrained_groups : list
        What the same tests find for random weights: nothing, if all is well.
    notes : list of str
        What to know.
    table : Table
        The evidence per image.
    run_ids : tuple of str
        The runs it was read from.
    """

    condition: dict[str, Any]
    embedding: str
    aligned_by: str
    weights: str
    subject: int
    n_seeds: int
    n_images: int
    top1: float
    evidence: float
    p: float | None
    is_found: bool
    times: np.ndarray
    time: np.ndarray
    bands: dict[str, float]
    sensors: dict[str, float]
    positions: list[Any]
    groups: dict[str, float]
    windows: list[Cluster]
    band_p: dict[str, float]
    sensor_p: dict[str, float]
    group_p: dict[str, float]
    peak: float | None
    half: float | None
    corrected_peak: float | None
    occlusion: list[dict[str, Any]]
    similarity: float
    reliability: float
    random_reliability: float
    untrained_windows: list[Cluster]
    untrained_bands: list[str]
    untrained_groups: list[str]
    notes: list[str]
    table: Table
    run_ids: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The embedding, marked where its weights are not the published ones: as tables and pictures call it."""
        return marked(self.embedding, self.weights)


def share(values: np.ndarray) -> np.ndarray:
    """Return values whose absolute values add up to one; zeros stay zeros.

    Examples
    --------
    >>> share(np.array([3.0, -1.0])).tolist()
    [0.75, -0.25]
    """
    mass = np.abs(values).sum()
    unit: np.ndarray = values / mass if mass else values
    return unit


def profile_of(
    runs: Path, rows: Sequence[Mapping[str, Any]], condition: dict[str, Any], label: str, method: str
) -> Profile:
    """Read what lies beside the runs of one embedding and subject, one per seed, and average it.

    Parameters
    ----------
    runs : Path
        Folder of all runs.
    rows : sequence of mapping
        Their rows of the results.
    condition : dict
        What they have in common.
    label : str
        What to call the embedding.
    method : str
        How they were explained.
    """
    ids = [row["run_id"] for row in rows]
    said = [read_beside(runs, run_id, beside_name(method)) or {} for run_id in ids]
    first, attributed = said[0], method != "paper-gradcam"
    n_images, times = len(first["image_ids"]), np.asarray(first["times"])

    def mean(name: str) -> np.ndarray:
        values = np.mean([read_array_beside(runs, run_id, beside_name(method), name) for run_id in ids], axis=0)
        return np.asarray(values, dtype=np.float64)

    def in_bands(name: str) -> dict[str, np.ndarray]:
        return dict(zip(first["bands"], mean(name).T, strict=True)) if len(times) else {}

    def in_groups(sensors: np.ndarray) -> dict[str, np.ndarray]:
        return {name: sensors[:, at].sum(axis=1) for name, at in first["groups"].items() if attributed}

    sensors = mean("sensors") if attributed else np.zeros((n_images, 0))
    table = Table(
        image_ids=first["image_ids"],
        time=mean("time") if len(times) else np.zeros((n_images, 0)),
        bands=in_bands("bands"),
        groups=in_groups(sensors),
        found=np.mean([one["hits"] for one in said], axis=0),
    )
    untrained = attributed and len(times) > 0
    time = share(table.time.mean(axis=0))
    bands = {name: values.mean() for name, values in table.bands.items()}
    mass = sum(map(abs, bands.values())) or 1.0
    at_sensors = share(sensors.mean(axis=0))
    evidence = float(np.mean([one.get("explained", 0.0) for one in said]))
    limits = [stimulation_note(condition["dataset"])] if len(times) else []
    if not attributed:
        limits = statement(len(first["column_times"]), len(times), first["sfreq"], float(times[0]))
    p = _above_zero({"all": sensors.sum(axis=1)})["all"] if attributed else None
    return Profile(
        condition=condition,
        embedding=label,
        aligned_by=rows[0]["aligned_by"],
        weights=rows[0]["weights"],
        subject=rows[0]["subject"],
        n_seeds=len(rows),
        n_images=n_images,
        top1=float(np.mean([row["top1"] for row in rows])),
        evidence=evidence,
        p=p,
        is_found=is_found([evidence], [p]),
        times=times,
        time=time,
        bands={name: float(value / mass) for name, value in bands.items()},
        sensors=dict(zip(first["sensors"], at_sensors.tolist(), strict=True)) if at_sensors.size else {},
        positions=first["positions"],
        groups={name: float(at_sensors[at].sum()) for name, at in first["groups"].items() if attributed},
        windows=clusters(table.time, times, above_zero=True) if attributed else [],
        band_p=_above_zero(table.bands) if attributed else {},
        sensor_p=_above_zero(dict(zip(first["sensors"], sensors.T, strict=True))) if attributed else {},
        group_p=_above_zero(table.groups),
        peak=float(times[time.argmax()]) if time.any() else None,
        half=_half(times, time),
        corrected_peak=None if attributed else _corrected_peak(runs, ids, first, method),
        occlusion=_averaged([one["occlusion"] for one in said], evidence),
        **{name: float(np.mean([one["sanity"][name] for one in said])) for name in said[0]["sanity"]},
        untrained_windows=clusters(mean("untrained_time"), times, above_zero=True) if untrained else [],
        untrained_bands=_found(in_bands("untrained_bands")) if untrained else [],
        untrained_groups=_found(in_groups(mean("untrained_sensors"))) if attributed else [],
        notes=list(dict.fromkeys(note for note in (*limits, *(note for one in said for note in one["notes"])) if note)),
        table=table,
        run_ids=tuple(ids),
    )


def _above_zero(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return Holm-corrected p-values of one-sided t-tests over images; an offset is no band, and not asked about."""
    from scipy.stats import ttest_1samp

    values = {name: of for name, of in values.items() if name != "offset"}
    if not values:
        return {}
    table = np.array(list(values.values()))
    p = np.ones(len(table))
    varies = table.std(axis=1) > 0
    if table.shape[1] > 1 and varies.any():
        p[varies] = ttest_1samp(table[varies], 0.0, axis=1, alternative="greater").pvalue
    return dict(zip(values, holm(p.tolist()), strict=True))


def _found(values: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name, p in _above_zero(values).items() if p <= LEVEL]


def _half(times: np.ndarray, time: np.ndarray) -> float | None:
    """Return from when on half of the evidence has come; None where there is none for the right image."""
    if time.sum() <= 0:
        return None
    less = np.flatnonzero(np.cumsum(time) < time.sum() / 2)  # shares may be negative: the sum may fall below it again
    return float(times[less[-1] + 1 if len(less) else 0])


def _corrected_peak(runs: Path, ids: Sequence[str], first: Mapping[str, Any], method: str) -> float:
    columns = np.mean([read_array_beside(runs, run_id, beside_name(method), "columns") for run_id in ids], axis=0)
    return float(first["column_times"][int(columns.mean(axis=0).argmax())])


def _averaged(parts: Sequence[Sequence[Mapping[str, Any]]], evidence: float) -> list[dict[str, Any]]:
    """Average the occlusions of several seeds, part by part; a share is of their mean evidence, where that is any."""
    found = []
    for same in zip(*parts, strict=True):
        lost, top1 = (float(np.mean([one[name] for one in same])) for name in ("lost", "top1"))
        share = lost / evidence if evidence > 0 else None
        found.append({"kind": same[0]["kind"], "part": same[0]["part"], "lost": lost, "share": share, "top1": top1})
    return found
