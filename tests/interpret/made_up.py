"""Profiles with evidence at a known time, and two sides of a pair made of them."""

from dataclasses import replace

import numpy as np

from pipelines.interpret.clusters import Cluster
from pipelines.interpret.profile import Profile, Table, share

__all__ = ["CONDITION", "N_IMAGES", "POSITIONS", "TIMES", "profile", "sides", "subject"]

TIMES = np.arange(50) / 100
N_IMAGES = 30
CONDITION = {"dataset": "things-eeg2", "brain_encoder": "nice"}
POSITIONS = [[0.0, 0.1, 0.04], [0.0, -0.1, 0.04], [0.1, 0.0, 0.04], [0.0, 0.0, 0.14]]


def profile(embedding, subject, peak, **changes):
    course = np.exp(-0.5 * ((TIMES - peak) / 0.03) ** 2)
    nothing = Table(image_ids=[], time=np.zeros((0, 50)), bands={}, groups={}, found=np.zeros(0))
    found = Profile(
        condition=CONDITION,
        embedding=embedding,
        aligned_by="",
        weights="none",
        subject=subject,
        n_seeds=1,
        n_images=40,
        top1=0.5,
        evidence=2.0,
        p=0.01,
        is_found=True,
        times=TIMES,
        time=course / course.sum(),
        bands={"offset": -0.1, "theta": 0.2 + subject / 100, "alpha": 0.7},
        sensors={"Fz": 0.0, "Oz": 0.8, "T8": -0.1, "Cz": 0.1},
        positions=POSITIONS,
        groups={"frontal": 0.1, "occipital": 0.9},
        windows=[Cluster(peak - 0.05, peak + 0.05, 1, 0.01)],
        band_p={},
        sensor_p={},
        group_p={},
        peak=peak,
        half=peak,
        corrected_peak=None,
        occlusion=[],
        similarity=0.0,
        reliability=0.9,
        random_reliability=0.9,
        untrained_windows=[],
        untrained_bands=[],
        untrained_groups=[],
        notes=[],
        table=nothing,
    )
    return replace(found, **changes)


def subject(number, embedding, centre, *, seed=0, found=None):
    """A profile whose images have noisy evidence around one time, more of it in one band."""
    rng = np.random.default_rng((seed, number, len(embedding)))
    course = np.exp(-0.5 * ((TIMES - centre) / 0.03) ** 2)
    time = course + 0.3 * rng.standard_normal((N_IMAGES, len(TIMES)))
    bands = {name: 1 + 0.2 * rng.standard_normal(N_IMAGES) for name in ("offset", "theta", "alpha")}
    bands["alpha"] += 3 * (embedding == "aligned")
    groups = {"frontal": 0.1 * rng.standard_normal(N_IMAGES), "occipital": 1 + 0.1 * rng.standard_normal(N_IMAGES)}
    table = Table(
        image_ids=[f"image-{i}" for i in range(N_IMAGES)],
        time=time,
        bands=bands,
        groups=groups,
        found=np.ones(N_IMAGES) if found is None else np.asarray(found, float),
    )
    return profile(embedding, number, centre, time=share(time.mean(axis=0)), table=table)


def sides(n_subjects, aligned=0.12, base=0.3, **changes):
    return (
        [subject(s, "aligned", aligned, **changes) for s in range(1, n_subjects + 1)],
        [subject(s, "base", base, **changes) for s in range(1, n_subjects + 1)],
    )
