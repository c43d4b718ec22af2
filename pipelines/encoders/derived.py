"""Encoders without a network of their own: rows of another embedding, mapped. Imports no torch.

A table of the family ``affine`` is bound by name to its ``matched_base``: the map goes onto rows of that embedding,
of the same view and with the same kind of weights, as they are stored; see `pipelines.encoders.combinations`.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.encoders.affine import AffineMap, random_affine, read_affine
from pipelines.encoders.fetch import git_blob
from pipelines.encoders.registry import EncoderSpec, WeightsFile, find, registry
from pipelines.encoders.weights import Weights, resolve_weights
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

__all__ = ["Derivation", "base_name", "base_weights", "is_derived", "load_derivation", "network"]


@dataclass(frozen=True, slots=True)
class Derivation:
    """How the rows of one encoder follow from those of another.

    Parameters
    ----------
    spec : EncoderSpec
        Its table.
    weights : Weights
        Of the map.
    map : AffineMap
        From rows of the base, as stored, to its own in float32.
    """

    spec: EncoderSpec
    weights: Weights
    map: AffineMap


def is_derived(spec: EncoderSpec) -> bool:
    """Whether rows of this encoder are computed from rows of another.

    Examples
    --------
    >>> is_derived(find("glocal-resnet18")), is_derived(find("resnet18-tv"))
    (True, False)
    """
    return spec.family == "affine"


def base_name(name: EmbeddingName) -> EmbeddingName:
    """Return the embedding that a derived one is computed from.

    Raises
    ------
    EmbedctlError
        If a layer or pooling is asked for: the map belongs to one tap.

    Examples
    --------
    >>> str(base_name(EmbeddingName.parse("glocal-resnet18@grey")))
    'resnet18-tv@grey'
    """
    spec = find(name.encoder)
    if name.layer or name.pooling:
        raise _no_network(spec)
    return EmbeddingName(spec.matched_base, view=name.view)


def base_weights(weights: str, base: str) -> str:
    """Return the weights of the base for those a derived encoder was asked for with: a file is the map's own.

    A folder that ``models pull --to`` filled is that of the base as well, where it holds it.

    Examples
    --------
    >>> base_weights("random:7", "resnet18-tv"), base_weights("transform.npz", "resnet18-tv")
    ('random:7', 'published')
    """
    return weights if weights.startswith("random:") or (Path(weights) / base).is_dir() else "published"


def load_derivation(spec: EncoderSpec, weights: str = "published", *, offline: bool = False) -> Derivation:
    """Find and read, or draw, the map of a derived encoder.

    Parameters
    ----------
    spec : EncoderSpec
        A table of the family ``affine``.
    weights : str
        ``published``, ``random:SEED`` or the path of a ``transform.npz``.
    offline : bool
        Never fetch weights.

    Raises
    ------
    NotHere
        If the published file is not on this computer.
    EmbedctlError
        If the file is another encoder's transform, or not the one that was published, or cannot be read.
    """
    found = resolve_weights(spec, weights, offline=offline)
    if found.seed is not None:
        drawn = replace(found, source=f"numpy.random.default_rng({found.seed})")
        return Derivation(spec, drawn, random_affine(spec.dim, found.seed))
    path = found.files[0]
    _refuse_another_encoders(spec, found.label.removeprefix("sha256:"), path)
    return Derivation(spec, found, read_affine(path, spec.dim))


def network(spec: EncoderSpec, weights: Weights, device: str = "cpu") -> None:
    """Refuse to build what has no network; every family has this function.

    Raises
    ------
    EmbedctlError
        Always.
    """
    raise _no_network(spec)


def _no_network(spec: EncoderSpec) -> EmbedctlError:
    return EmbedctlError(
        f"'{spec.id}' is a map of stored rows of '{spec.matched_base}': it has no layers and no network of its own",
        f"ask for '{spec.id}' alone, or for layers of '{spec.matched_base}'",
    )


def _refuse_another_encoders(spec: EncoderSpec, sha256: str, path: Path) -> None:
    """Shapes cannot tell transforms of equally wide networks apart, and upstream itself has mixed two up."""
    blob = git_blob(path)
    for other in registry().values():
        if is_derived(other) and other.id != spec.id and any(_is(file, sha256, blob) for file in other.weights):
            raise EmbedctlError(
                f"{path.name} is the transform of '{other.id}', not of '{spec.id}'",
                f"`embedctl models pull {spec.id}` fetches the right one, from a pinned commit",
            )


def _is(file: WeightsFile, sha256: str, blob: str) -> bool:
    return file.sha256 == sha256 if file.sha256 else file.git_blob == blob
