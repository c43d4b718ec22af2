"""Aligned minus base: whether alignment moves the evidence in time or between frequencies.

Both sides are brought to unit mass first, and the comparison is made twice: over all images, and over the images that
both decoders found with half of their seeds at least. A better decoder has less noise in its map, and that alone
changes the map's form; over images that both found, both are equally right.

With six subjects or more the subject is the unit, seeds and images averaged. Fewer cannot show a group difference (five
subjects give no p below 0.0625): then each subject is tested alone, over its images, which says nothing about other
subjects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.interpret.clusters import LEVEL, Cluster, clusters
from pipelines.interpret.over_subjects import FEWEST_SUBJECTS
from pipelines.interpret.profile import Profile
from pipelines.train.origin import marked
from pipelines.train.statistics import holm, sign_flip
from stores.names import counted

__all__ = ["FEWEST_IMAGES", "PairTest", "PairedProfile", "PartTest", "paired"]

FEWEST_IMAGES = 8  # that both found


@dataclass(frozen=True, slots=True)
class PartTest:
    """Difference of the shares of a band or group, its p, and p corrected over all of them by Holm's method."""

    difference: float
    p: float
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class PairTest:
    """One comparison.

    Parameters
    ----------
    matched : bool
        Whether over the images that both found alone.
    over : str
        What is resampled: ``subjects``, or ``images of subject 3``.
    n : int
        How many of them.
    time : (n_times,)
        Mean difference of the shares.
    windows : list of Cluster
        When it differs from zero.
    bands, groups : dict of str to PartTest
        Bands of frequencies, and groups of sensors or regions of interest.
    """

    matched: bool
    over: str
    n: int
    time: np.ndarray
    windows: list[Cluster]
    bands: dict[str, PartTest]
    groups: dict[str, PartTest]


@dataclass(frozen=True, kw_only=True)
class PairedProfile:
    """An aligned embedding against its base.

    Parameters
    ----------
    condition : dict
        What is the same for both.
    embedding, base : str
        Who.
    note : str
        Why `embedctl compare` gives this pair no verdict; empty where it does.
    subjects : tuple of int
        Subjects that both have.
    times : (n_times,)
        In s.
    half : dict of int to float
        By how much later half of the evidence has come, aligned minus base, per subject; s.
    tests : list of PairTest
        Over all images, and over those that both found.
    notes : list of str
        What could not be tested.
    run_ids : tuple of str
        The runs of both sides.
    weights, base_weights : str
        What the results say of each side's weights.
    """

    condition: dict[str, Any]
    embedding: str
    base: str
    note: str
    subjects: tuple[int, ...]
    times: np.ndarray
    half: dict[int, float]
    tests: list[PairTest]
    notes: list[str]
    run_ids: tuple[str, ...] = ()
    weights: str = "none"
    base_weights: str = "none"

    @property
    def names(self) -> tuple[str, str]:
        """Both sides, marked as `pipelines.interpret.profile.Profile.name` is."""
        return marked(self.embedding, self.weights), marked(self.base, self.base_weights)


@dataclass(frozen=True)
class _Sides:
    """One subject: evidence over the same images, each side brought to unit mass; aligned first."""

    time: list[np.ndarray]
    bands: list[dict[str, np.ndarray]]
    groups: list[dict[str, np.ndarray]]


def paired(aligned: Sequence[Profile], base: Sequence[Profile], note: str = "") -> PairedProfile:
    """Compare two embeddings on the subjects that both have.

    Parameters
    ----------
    aligned, base : sequence of Profile
        One per subject, under the same condition.
    note : str
        What to say about the pair.
    """
    ours, theirs = ({profile.subject: profile for profile in side} for side in (aligned, base))
    subjects = tuple(sorted(ours.keys() & theirs.keys()))
    notes: list[str] = []
    tests: list[PairTest] = []
    if len(subjects) < FEWEST_SUBJECTS:
        notes.append(
            f"{len(subjects)} subject{'s' if len(subjects) > 1 else ''} cannot show a group difference: "
            "each is tested alone, over images"
        )
    for matched in (False, True):
        sides = {}
        for subject in subjects:
            found, n = _sides(ours[subject], theirs[subject], matched)
            if found is None:
                notes.append(f"subject {subject}: both found {counted(n, 'image')} only, too few to match accuracy")
            else:
                sides[subject] = found
        if matched and 0 < len(sides) < FEWEST_SUBJECTS <= len(subjects):
            notes.append(
                f"in {len(sides)} of {len(subjects)} subjects alone both found enough images: "
                "there each is tested alone, over images"
            )
        tests += _tests(sides, ours[subjects[0]].times, matched)
    notes += _beyond_reach(len(subjects), tests)
    halves = {s: (ours[s].half, theirs[s].half) for s in subjects}
    return PairedProfile(
        condition=aligned[0].condition,
        embedding=aligned[0].embedding,
        base=base[0].embedding,
        note=note,
        subjects=subjects,
        times=ours[subjects[0]].times,
        half={s: one - other for s, (one, other) in halves.items() if one is not None and other is not None},
        tests=tests,
        notes=notes,
        run_ids=tuple(run_id for side in (ours, theirs) for s in subjects for run_id in side[s].run_ids),
        weights=aligned[0].weights,
        base_weights=base[0].weights,
    )


def _beyond_reach(n_subjects: int, tests: Sequence[PairTest]) -> list[str]:
    """Say which parts so few subjects cannot show to differ: the smallest p of sign flips, corrected, is above 5 %."""
    if n_subjects < FEWEST_SUBJECTS:
        return []
    lowest = 2 / 2**n_subjects
    return [
        f"{counted(n_subjects, 'subject')} cannot show which {what} differ: "
        f"the lowest p, corrected over {n}, is {n * lowest:.2g}"
        for what, n in (("bands", len(tests[0].bands)), ("regions", len(tests[0].groups)))
        if n * lowest > LEVEL
    ]


def _sides(aligned: Profile, base: Profile, matched: bool) -> tuple[_Sides | None, int]:
    """Return both sides over the images they share, and how many these are."""
    place = {image: row for row, image in enumerate(base.table.image_ids)}
    rows = [
        (row, place[image])
        for row, image in enumerate(aligned.table.image_ids)
        if image in place
        and (not matched or (aligned.table.found[row] >= 0.5 and base.table.found[place[image]] >= 0.5))
    ]
    if len(rows) < (FEWEST_IMAGES if matched else 2):
        return None, len(rows)
    tables = list(zip((aligned.table, base.table), np.array(rows).T, strict=True))
    time = [table.time[at] / (np.abs(table.time[at].mean(axis=0)).sum() or 1.0) for table, at in tables]
    bands = [_unit_mass(table.bands, at) for table, at in tables]
    groups = [_unit_mass(table.groups, at) for table, at in tables]
    return _Sides(time, bands, groups), len(rows)


def _unit_mass(parts: Mapping[str, np.ndarray], at: np.ndarray) -> dict[str, np.ndarray]:
    mass = sum(abs(values[at].mean()) for values in parts.values()) or 1.0
    return {name: values[at] / mass for name, values in parts.items()}


def _tests(sides: Mapping[int, _Sides], times: np.ndarray, matched: bool) -> list[PairTest]:
    if len(sides) >= FEWEST_SUBJECTS:
        return [_test("subjects", list(sides.values()), times, matched)]
    return [_test(f"images of subject {subject}", [one], times, matched) for subject, one in sides.items()]


def _test(over: str, sides: Sequence[_Sides], times: np.ndarray, matched: bool) -> PairTest:
    """Test the differences of several subjects' means, or of one subject's images."""
    singly = len(sides) == 1

    def differences(pairs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
        found = [ours - theirs for ours, theirs in pairs]
        return found[0] if singly else np.array([values.mean(axis=0) for values in found])

    def tested(pairs: Sequence[Sequence[Mapping[str, np.ndarray]]], without: str = "") -> dict[str, PartTest]:
        names = [n for n in pairs[0][0] if n != without and all(n in side for pair in pairs for side in pair)]
        found = [differences([[side[name] for side in pair] for pair in pairs]) for name in names]
        p = [_t_test(values) if singly else sign_flip(values).p for values in found]
        corrected = holm(p)
        return {n: PartTest(float(found[i].mean()), p[i], corrected[i]) for i, n in enumerate(names)}

    time = differences([one.time for one in sides])
    return PairTest(
        matched=matched,
        over=over,
        n=len(time),
        time=time.mean(axis=0),
        windows=clusters(time, times),
        bands=tested([one.bands for one in sides], without="offset"),
        groups=tested([one.groups for one in sides]),
    )


def _t_test(values: np.ndarray) -> float:
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(values, 0.0).pvalue) if len(values) > 1 and values.std() > 0 else 1.0
