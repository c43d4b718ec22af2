"""Where the numbers behind a run come from, and whether a verdict may rest on them.

A row's ``weights`` is ``none`` (an encoder that needs no weights), ``sha256:...`` (the published ones),
``random:SEED``, ``file:sha256:...`` (a file of the user's) or ``imported, unverified`` (vectors that were computed
elsewhere). The registry vouches for the first two; the others are shown and marked, and decide nothing.
"""

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipelines.encoders.registry import EncoderSpec, registry
from pipelines.train.several import Target
from stores.embedding import IMPORTED, Entry

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["doubt", "is_contaminated", "mark", "marked", "simulated_in", "weights_column", "weights_of"]


def weights_column(entry: Entry) -> str:
    """Return what the results say of an embedding's weights."""
    label = str(entry.provenance.get("weights", ""))
    if entry.provenance.get("imported"):
        return IMPORTED
    spec = registry().get(entry.name.encoder)
    is_the_published_file = spec is not None and _known_digest(spec) and label.startswith(_known_digest(spec))
    return label if entry.published or is_the_published_file or label.startswith("random:") else f"file:{label}"


def weights_of(target: Target) -> str:
    """Return what the results say of the weights of a target: of several embeddings the first that has a mark.

    Where none has one, it is a digest of what they say.
    """
    said = list(dict.fromkeys(weights_column(part) for part in target.parts))
    if marked := [one for one in said if mark(one)]:
        return marked[0]
    return said[0] if len(said) == 1 else f"sha256:{hashlib.sha256(' '.join(said).encode()).hexdigest()}"


def is_contaminated(encoder: str) -> bool:
    """Return whether an encoder, or one of several joined by ``+``, was fitted to THINGS or to brain data.

    Examples
    --------
    >>> is_contaminated("hog"), is_contaminated("hog+glocal-clip-rn50"), is_contaminated("nobody-knows")
    (False, True, False)
    """
    known = registry()
    names = [encoder] if encoder in known else encoder.split("+")
    return any(name in known and known[name].contaminated for name in names)


def mark(weights: str) -> str:
    """Return what stands beside an embedding wherever it is shown; empty for published weights, or none needed.

    Examples
    --------
    >>> mark("random:7"), mark("file:sha256:00ff"), mark("imported, unverified"), mark("sha256:00ff"), mark("none")
    ('random:7', 'own weights', 'imported, unverified', '', '')
    """
    if weights.startswith("random:") or weights == IMPORTED:
        return weights
    return "" if weights == "none" or weights.startswith("sha256:") else "own weights"


def marked(embedding: str, weights: str) -> str:
    """Return an embedding's name as tables and pictures call it: with its mark where it has one.

    Examples
    --------
    >>> marked("resnet18-tv", "random:0"), marked("hog", "none")
    ('resnet18-tv (random:0)', 'hog')
    """
    return f"{embedding} ({mark(weights)})" if mark(weights) else embedding


def doubt(row: Mapping[str, Any]) -> str:
    """Return why no verdict may rest on a row of the results; empty where one may.

    Examples
    --------
    >>> doubt({"encoder": "hog", "weights": "none"}), doubt({"encoder": "cornet-s", "weights": "sha256:1d3f7974ff"})
    ('', '')
    >>> doubt({"encoder": "resnet50-tv", "weights": "sha256:ffff"})
    'resnet50-tv: not the published weights'
    >>> doubt({"encoder": "resnet50-tv", "weights": "random:7"})
    'resnet50-tv: random:7'
    """
    encoder, weights = row["encoder"], row["weights"]
    if marked := mark(weights):
        return f"{encoder}: {marked}"
    spec = registry().get(encoder)
    if spec is None:
        return f"{encoder}: not in the registry"
    if weights == "none":
        return "" if spec.family == "classical" else f"{encoder}: says it needs no weights"
    return "" if weights.startswith(_known_digest(spec)) else f"{encoder}: not the published weights"


def simulated_in(results: "pa.Table") -> dict[str, list[int]]:
    """Return the subjects whose recordings are simulated, by dataset."""
    found: dict[str, set[int]] = {}
    for row in results.select(["dataset", "subject", "simulated"]).to_pylist():
        if row["simulated"]:
            found.setdefault(row["dataset"], set()).add(row["subject"])
    return {dataset: sorted(subjects) for dataset, subjects in sorted(found.items())}


def _known_digest(spec: EncoderSpec) -> str:
    """Return how the label of the published weights begins, where the registry knows; else empty.

    Of several files the label is a digest of digests: extract has compared each with the registry.
    """
    known = spec.weights[0].sha256 if len(spec.weights) == 1 else ""
    return f"sha256:{known}" if known else ""
