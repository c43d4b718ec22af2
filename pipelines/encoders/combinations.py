"""Embeddings that follow from stored rows of others, whatever they are: mapped, side by side, or averaged.

* A table of the family ``affine`` maps the rows of its ``matched_base``, see `pipelines.encoders.derived`.
* A table of the family ``concat`` or ``mean`` names its parts, any embeddings: ``model = { of = ["clip-rn50:layer3",
  "dino-vitb16@grey"] }``. The rows are taken as they are stored, in this order and without scaling.
* ``ENCODER@VIEW+VIEW`` is the mean over views of any encoder, without a table.

A view asked of a combination is that of every part that names none. Imports no torch;
`pipelines.extract.derive` does it.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipelines.encoders.derived import base_name, base_weights, load_derivation
from pipelines.encoders.registry import EncoderSpec, find
from pipelines.encoders.weights import Weights
from stores.errors import EmbedctlError, UnknownName
from stores.names import EmbeddingName

__all__ = ["Combination", "Source", "is_combination", "network", "read_combination"]


@dataclass(frozen=True, slots=True)
class Source:
    """A stored embedding that rows are taken from, or one that will be stored by then."""

    name: EmbeddingName
    key: str
    weights: str
    batch_size: int
    dim: int


@dataclass(frozen=True, slots=True)
class Combination:
    """How the rows of one embedding follow from those of others.

    Parameters
    ----------
    spec : EncoderSpec
        Its table.
    kind : str
        ``affine``, ``concat`` or ``mean``.
    sources : tuple of EmbeddingName
        What the rows are taken from.
    source_weights : str
        Weights that the sources are to have.
    combine : callable
        From the sources' rows ``(n, dim)``, as stored, and the numbers of these rows, to its own in float32.
    weights : Weights, optional
        Of the map; None where there is nothing but the sources' weights.
    """

    spec: EncoderSpec
    kind: str
    sources: tuple[EmbeddingName, ...]
    source_weights: str
    combine: Callable[[Sequence[np.ndarray], np.ndarray], np.ndarray]
    weights: Weights | None = None

    def keyed_spec(self, sources: Sequence[Source]) -> EncoderSpec:
        """Return the table as `embedding_key` has to see it: which numbers it takes is part of which numbers it gives.

        Raises
        ------
        EmbedctlError
            If rows of different length are to be averaged, or the table promises another length than they give.
        """
        dims = [source.dim for source in sources]
        dim = {"affine": self.spec.dim, "concat": sum(dims), "mean": dims[0]}[self.kind]
        if self.kind == "mean" and len(set(dims)) > 1:
            raise EmbedctlError(
                f"'{self.spec.id}' is a mean of rows of {', '.join(map(str, dims))} numbers",
                "only embeddings of one width have a mean; `concat` puts others side by side",
            )
        if self.spec.family in ("concat", "mean") and dim != self.spec.dim:
            raise EmbedctlError(
                f"the parts of '{self.spec.id}' give {dim} numbers, and its table says {self.spec.dim}",
                f"write dim = {dim} into its table",
            )
        keys = [source.key for source in sources]
        model = {"base": keys[0]} if self.kind == "affine" else {"of": keys}
        return replace(self.spec, family=self.kind, model=model, dim=dim)

    def weights_of(self, sources: Sequence[Source]) -> Weights:
        """Return its weights: its own, or what tells those of its sources."""
        if self.weights:
            return self.weights
        told = [label for label in dict.fromkeys(source.weights for source in sources) if label != "none"]
        label = told[0] if len(told) == 1 else "sha256:" + hashlib.sha256("\n".join(told).encode()).hexdigest()
        return Weights(label if told else "none", f"those of {', '.join(str(source.name) for source in sources)}")


def is_combination(name: EmbeddingName) -> bool:
    """Whether rows of this embedding are computed from rows of others.

    Examples
    --------
    >>> [is_combination(EmbeddingName.parse(text)) for text in ("glocal-resnet18", "hog@grey", "hog@grey+blur-9")]
    [True, False, True]
    """
    return "+" in name.view or find(name.encoder).family in ("affine", "concat", "mean")


def read_combination(name: EmbeddingName, weights: str = "published", *, offline: bool = False) -> Combination:
    """Find out how an embedding follows from others; a map is read, or drawn.

    Parameters
    ----------
    name : EmbeddingName
        An embedding for which `is_combination` holds.
    weights : str
        ``published``, ``random:SEED``, or the path of a file: of an affine map its own, else the sources' weights.
    offline : bool
        Never fetch weights.

    Raises
    ------
    EmbedctlError
        If a layer of a combination is asked for, its table has no parts, one file is to be the weights of several
        encoders, or a map does not belong to its encoder.
    NotHere
        If a map is not on this computer.

    Examples
    --------
    >>> mean = read_combination(EmbeddingName.parse("hog@grey+blur-9"))
    >>> [str(source) for source in mean.sources]
    ['hog@grey', 'hog@blur-9']
    >>> mean.combine([np.array([[1.0, 2.0]]), np.array([[3.0, 6.0]])], np.array([0])).tolist()
    [[2.0, 4.0]]
    """
    spec = find(name.encoder)
    if "+" in name.view:
        views = tuple(replace(name, view=view) for view in name.view.split("+"))
        return Combination(spec, "mean", views, weights, _mean)
    if spec.family == "affine":
        base = base_name(name)
        derivation = load_derivation(spec, weights, offline=offline)
        return Combination(
            spec,
            "affine",
            (base,),
            base_weights(weights, base.encoder),
            lambda values, rows: derivation.map(values[0], rows),
            derivation.weights,
        )
    if name.layer or name.pooling:
        raise _no_network(spec)
    parts = tuple(part if part.view else replace(part, view=name.view) for part in _parts(spec))
    encoders = list(dict.fromkeys(part.encoder for part in parts))
    if len(encoders) > 1 and Path(weights).is_file():
        raise EmbedctlError(
            f"'{weights}' cannot be the weights of '{encoders[0]}' and of '{encoders[1]}'",
            f"extract the parts of '{spec.id}' one at a time",
        )
    return Combination(spec, spec.family, parts, weights, _mean if spec.family == "mean" else _side_by_side)


def _parts(spec: EncoderSpec) -> list[EmbeddingName]:
    of = spec.model.get("of")
    if not isinstance(of, (list, tuple)) or not of or not all(isinstance(part, str) for part in of):
        raise EmbedctlError(
            f"the table of '{spec.id}' does not say of what it is made",
            'model = { of = ["clip-rn50:layer3", "dino-vitb16@grey"] }',
        )
    names = [EmbeddingName.parse(part) for part in of]
    try:
        return [replace(name, encoder=find(name.encoder).id) for name in names]
    except UnknownName as problem:
        raise UnknownName(
            f"'{spec.id}' cannot be made of that: {problem.what}",
            f"{problem.hint}; imported embeddings are no parts, since nobody could compute the whole again",
        ) from problem


def _mean(values: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    mean: np.ndarray = np.mean([part.astype(np.float32) for part in values], axis=0)
    return mean


def _side_by_side(values: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    return np.concatenate([part.astype(np.float32) for part in values], axis=1)


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
        f"'{spec.id}' is made of stored rows of {', '.join(map(str, _parts(spec)))}: it has no layers of its own",
        f"ask for '{spec.id}' alone, or for layers of its parts",
    )
