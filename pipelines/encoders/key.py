"""The key of an embedding: twelve hex digits that change when, and only when, the numbers would."""

import hashlib
import json
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

from pipelines.encoders.families import family
from pipelines.encoders.registry import EncoderSpec
from stores.errors import NotHere
from stores.names import EmbeddingName
from stores.versions import installed_version

__all__ = ["embedding_key", "versions_that_matter"]

_MODULES = {"open_clip_torch": "open_clip", "pillow": "PIL"}
"""What is imported of a package, where that is not its name."""


def embedding_key(
    spec: EncoderSpec,
    name: EmbeddingName,
    weights: str,
    exact: bool,
    batch_size: int,
    dtype: str,
    versions: dict[str, str],
) -> tuple[str, dict[str, Any]]:
    """Return the key of an embedding and the recipe it hashes.

    The recipe holds everything that changes the numbers except the batch size: it identifies a stored embedding
    whose batch size a later run adopts. Licence, notes, references and pairings are not in it.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder.
    name : EmbeddingName
        Layer, pooling and view; empty layer and pooling stand for the encoder's conventional ones.
    weights : str
        ``random:SEED``, ``sha256:HEX`` or ``none``.
    exact : bool
        Whether pixels come from the library's own transform; where there is no other way they do so anyway.
    batch_size : int
        Rows of one forward pass: it changes the last bits.
    dtype : str
        Of the stored rows.
    versions : dict of str to str
        What `versions_that_matter` returned.

    Returns
    -------
    tuple of str and dict
        Twelve hex digits; the recipe, as plain data that JSON can hold.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> spec, name = find("pixels"), EmbeddingName("pixels")
    >>> key, recipe = embedding_key(spec, name, "none", False, 32, "float16", {})
    >>> len(key), "batch_size" in recipe
    (12, False)
    """
    recipe = {
        "family": spec.family,
        "model": dict(spec.model),
        "layer": name.layer or spec.tap,
        "pooling": name.pooling or ("" if name.layer else spec.pooling),
        "view": name.view,
        "preprocessing": asdict(spec.preprocessing),
        "exact": exact or not spec.preprocessing.has_fast,
        "weights": weights,
        "dtype": dtype,
        "versions": versions,
    }
    recipe = json.loads(json.dumps(recipe))  # tuples become lists, as they will be when read back
    hashed = json.dumps({**recipe, "batch_size": batch_size}, sort_keys=True)
    return hashlib.sha256(hashed.encode()).hexdigest()[:12], recipe


def versions_that_matter(spec: EncoderSpec, weights: str, view: str = "") -> dict[str, str]:
    """Return the installed versions that can change the numbers, without importing anything.

    Drawing random weights is the constructor's own business and may change with every patch, so they carry full
    versions; published weights are computed by kernels that change with major.minor at most. NumPy draws the noise of a
    view.

    Raises
    ------
    NotHere
        If a package can be imported and nobody knows its version: rows of two of them would pass for the same.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> sorted(versions_that_matter(find("pixels"), "none"))
    ['pillow', 'torch']
    """
    parts = 3 if weights.startswith("random:") else 2
    found = {}
    packages = family(spec.family).packages + (("numpy",) if view.startswith("noise-") else ())
    for package in packages:
        public = installed_version(package).partition("+")[0] or "not installed"
        if public == "not installed" and find_spec(_MODULES.get(package, package)):
            raise NotHere(
                f"which version of {package} is here cannot be told, so no stored row can be known to be the same",
                f"install {package} as a package, with its metadata",
            )
        found[package] = ".".join(public.split(".")[:parts])
    return found
