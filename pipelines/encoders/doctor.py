"""Examine one encoder: network, weights, pixels and numbers, against what is known of them."""

from dataclasses import dataclass

import numpy as np

from pipelines.encoders import preprocessing
from pipelines.encoders.build import Encoder, build
from pipelines.encoders.combinations import read_combination
from pipelines.encoders.derived import is_derived, load_derivation
from pipelines.encoders.golden import TOLERANCE, WEIGHTS, differs, golden, probe, probe_row, shortened, versions
from pipelines.encoders.registry import EncoderSpec, Preprocessing
from pipelines.encoders.weights import Weights, digest, resolve_weights
from pipelines.progress import SILENT, Progress
from stores.names import EmbeddingName

__all__ = ["Check", "examine"]

GREY_LEVELS = 2  # what the fast transform promises


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Parameters
    ----------
    what : str
        What was looked at.
    found : str
        What is there.
    problem : str
        What is wrong with it; empty where nothing is.
    """

    what: str
    found: str
    problem: str = ""


def examine(
    spec: EncoderSpec, weights: str = "published", *, offline: bool = False, progress: Progress = SILENT
) -> list[Check]:
    """Find the weights of an encoder, build it, and compare what it does with what is known of it.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder.
    weights : str
        ``published``, ``random:SEED`` or the path of a file.
    offline : bool
        Never fetch weights.

    Raises
    ------
    NotHere
        If weights or a package are not on this computer.
    DamagedStore
        If a file of weights is not the published one.
    EmbedctlError
        If the weights do not fit the network.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> [check.what for check in examine(find("pixels")) if not check.problem]
    ['weights', 'network', 'pixels', 'probe image']
    """
    if spec.family in ("concat", "mean"):
        parts = ", ".join(map(str, read_combination(EmbeddingName(spec.id), weights).sources))
        return [Check("parts", f"it is made of stored rows of {parts}, and `embedctl models doctor` examines each")]
    found = resolve_weights(spec, weights, offline=offline, progress=progress)
    checks = _weights(spec, found)
    if is_derived(spec):
        load_derivation(spec, weights, offline=offline)
        base = f"rows of '{spec.matched_base}', which `embedctl models doctor {spec.matched_base}` examines"
        return [*checks, Check("map", f"{spec.dim} x {spec.dim}, every number finite; it goes onto {base}")]
    encoder = build(spec, weights=weights, offline=offline)
    return [*checks, _network(encoder), _pixels(encoder), _probe(encoder)]


def _weights(spec: EncoderSpec, weights: Weights) -> list[Check]:
    if not weights.files:
        return [Check("weights", f"{weights.label}, {weights.source}")]
    if len(weights.files) != len(spec.weights):
        return [Check("weights", f"{weights.label}: {weights.source}, compared with no published file")]
    return [
        Check("weights", f"{path}: sha256 {(sha256 := digest([path]))}, {_compared(sha256, known.sha256)}")
        for path, known in zip(weights.files, spec.weights, strict=True)
    ]


def _compared(sha256: str, known: str) -> str:
    if not known:
        return "nobody has published one to compare with"
    if not sha256.startswith(known):
        return "not the published file"
    return "the published file" if len(known) == 64 else f"the published file by its first {len(known)} digits"


def _network(encoder: Encoder) -> Check:
    spec = encoder.spec
    dim = encoder.dims[EmbeddingName(spec.id)]
    tap = f"{spec.tap}.{spec.pooling}" if spec.pooling else spec.tap
    problem = "" if dim == spec.dim else f"the registry says {spec.dim}"
    return Check("network", f"{spec.family} {spec.model.get('name', spec.id)}: {dim} numbers at {tap}", problem)


def _pixels(encoder: Encoder) -> Check:
    p = encoder.spec.preprocessing
    pixels = encoder.exact_transform()(probe()).numpy()
    if pixels.shape != (3, p.size, p.size) or not np.isfinite(pixels).all():
        return Check("pixels", _said(p), f"the probe image becomes {pixels.shape}, or not finite")
    if not p.has_fast:
        return Check("pixels", f"{_said(p)}; there is no faster way")
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (p.mean, p.std))
    fast = preprocessing.fast_transform(p)(np.asarray(probe())).numpy()
    off = np.abs(fast - 255 * (pixels * std + mean)).max()
    problem = "" if off < GREY_LEVELS + 0.5 else f"more than {GREY_LEVELS} grey levels apart"
    return Check("pixels", f"{_said(p)}; the fast way is {off:.1f} grey levels from the library's", problem)


def _said(p: Preprocessing) -> str:
    fit = f"squashed to {p.size}" if p.fit == "squash" else f"short side {p.resize_to}, centre {p.size}"
    return f"{p.resize}, {fit}, mean {p.mean}, std {p.std}"


def _probe(encoder: Encoder) -> Check:
    row = probe_row(encoder)
    found = shortened(row)
    said = f"begins {', '.join(f'{value:g}' for value in found[:4])}"
    if not np.isfinite(row).all():
        return Check("probe image", said, "numbers that are not finite")
    expected = golden()["rows"].get(encoder.spec.id)
    if encoder.weights not in ("none", WEIGHTS):
        return Check("probe image", f"{said}; golden rows are known for --weights {WEIGHTS}")
    if expected is None:
        return Check("probe image", f"{said}; this encoder has no golden row")
    written, here = golden()["versions"], versions()
    if encoder.weights != "none" and written != here:
        other = ", ".join(f"{name} {written[name]} (here {here[name]})" for name in here if here[name] != written[name])
        return Check("probe image", f"{said}; the golden row is that of {other}")
    off = differs(found, expected)
    problem = "" if off <= TOLERANCE else f"the golden row begins {', '.join(f'{value:g}' for value in expected[:4])}"
    return Check("probe image", f"{said}: {off:.0e} from its golden row", problem)
