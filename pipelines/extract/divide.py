"""What of a request needs the images, and what follows from stored rows.

A source of the right weights that already has a row for every image is taken as it is: neither its weights nor the
images have to be on this computer.
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.encoders.combinations import Combination, is_combination, read_combination
from pipelines.encoders.derived import base_name, base_weights
from pipelines.encoders.fetch import here
from pipelines.encoders.registry import find
from pipelines.encoders.weights import resolve_weights
from pipelines.extract.request import ExtractRequest
from pipelines.extract.sources import open_images
from pipelines.extract.targets import resolve_names
from stores.embeddings import EmbeddingStore
from stores.errors import EmbedctlError, NotHere
from stores.names import EmbeddingName, counted

if TYPE_CHECKING:
    from stores.embedding import Entry

__all__ = ["divide", "stored_source"]


def divide(request: ExtractRequest) -> tuple[list[ExtractRequest], dict[EmbeddingName, Combination]]:
    """Split a request into passes over the images and embeddings to derive afterwards, in an order that can be done.

    Maps are read here, so that a wrong one is refused before hours of extracting its base.

    Raises
    ------
    NotHere
        If a transform is not on this computer.
    EmbedctlError
        If one file is to be the weights of several encoders, a layer of a derived encoder is asked for, a combination
        is part of itself, or a transform does not belong to its encoder or cannot be read.

    Examples
    --------
    >>> passes, derived = divide(ExtractRequest(models=("glocal-resnet18@grey+blur-9", "hog"), weights="random:7"))
    >>> [request.models for request in passes]
    [('hog', 'resnet18-tv@grey', 'resnet18-tv@blur-9')]
    >>> [str(name) for name in derived]
    ['glocal-resnet18@grey', 'glocal-resnet18@blur-9', 'glocal-resnet18@grey+blur-9']
    """
    names = resolve_names(request)
    store = None if request.refresh else EmbeddingStore.find(request.store)
    if not any(map(is_combination, names)):
        _refuse_absent(request, names, store, {})
        return [request], {}
    direct = [name for name in names if not is_combination(name)]
    encoders = list(dict.fromkeys(name.encoder for name in names))
    if len(encoders) > 1 and Path(request.weights).is_file():
        raise EmbedctlError(
            f"'{request.weights}' cannot be the weights of '{encoders[0]}' and of '{encoders[1]}'",
            "extract them one at a time",
        )
    lacking: dict[EmbeddingName, str] = {}
    derived: dict[EmbeddingName, Combination] = {}
    absent: dict[str, NotHere] = {}

    def need(name: EmbeddingName, weights: str, above: tuple[EmbeddingName, ...]) -> None:
        if name in above:
            raise EmbedctlError(f"'{name}' is part of itself", "leave it out of its own table")
        if name in derived or name in lacking or name in direct:
            return
        if above and store and _is_complete(store, stored_source(store, name, weights, request), request):
            return
        if not is_combination(name):
            lacking[name] = weights
            return
        try:
            combination = read_combination(name, weights, offline=request.offline)
        except NotHere as problem:
            if not request.offline or find(name.encoder).family != "affine":
                raise
            absent[name.encoder] = problem
            base = base_name(name)
            return need(base, base_weights(weights, base.encoder), (*above, name))
        for source in combination.sources:
            need(source, combination.source_weights, (*above, name))
        derived[name] = combination

    for name in names:
        need(name, request.weights, ())
    _refuse_absent(request, [*direct, *lacking], store, absent)
    parts: dict[tuple[str, bool], list[str]] = {}
    for name in direct:
        parts.setdefault((request.weights, request.overwrite), []).append(str(name))
    for name, weights in lacking.items():  # never overwritten: that means the embeddings that were named
        parts.setdefault((weights, False), []).append(str(name))
    return [
        replace(request, models=tuple(models), layers=(), views=(), weights=weights, overwrite=overwrite)
        for (weights, overwrite), models in parts.items()
    ], derived


def _refuse_absent(
    request: ExtractRequest, names: Collection[EmbeddingName], store: EmbeddingStore | None, absent: dict[str, NotHere]
) -> None:
    """Offline, name every encoder whose weights are lacking: on a cluster each answer costs a walk to the network."""
    if request.offline and request.weights == "published" and not request.dry_run:
        for name in names:
            spec = find(name.encoder)
            if all(here(file) for file in spec.weights):
                continue
            if store and _is_complete(store, stored_source(store, name, "published", request), request):
                continue
            try:
                resolve_weights(spec, offline=True)
            except NotHere as lacking:
                absent.setdefault(spec.id, lacking)
    if len(absent) > 1:
        raise NotHere(
            f"the weights of {counted(len(absent), 'encoder')} are not on this computer: {', '.join(absent)}",
            f"run `embedctl models pull {' '.join(absent)}` where there is internet, or try --weights random:0",
        )
    for problem in absent.values():
        raise problem


def stored_source(store: EmbeddingStore, name: EmbeddingName, wanted: str, request: ExtractRequest) -> "Entry | None":
    """Return the stored embedding to derive from: of the right weights; the one taken before, else the fullest."""
    exact = request.exact or not find(name.encoder).preprocessing.has_fast
    taken = {source["key"] for entry in store.entries() for source in entry.provenance.get("derived_from", ())}
    fitting = [
        entry
        for entry in store.entries()
        if entry.name == name
        and entry.provenance.get("exact", False) == exact
        and (entry.published if wanted == "published" else entry.provenance.get("weights") in (wanted, "none"))
    ]
    return max(fitting, key=lambda entry: (entry.key in taken, entry.n_committed, entry.key), default=None)


def _is_complete(store: EmbeddingStore, entry: "Entry | None", request: ExtractRequest) -> bool:
    """Whether every image of the folder has a row, or a reason why not; without a folder the store is all there is."""
    if entry is None or not request.images.exists():
        return entry is not None
    known = {*np.flatnonzero(store.committed(entry)).tolist(), *store.absent(entry)}
    return all(store.row_of.get(image_id) in known for image_id in open_images(request.images).stamps)
