"""``embedctl remove``: drop an embedding, a subject or a run."""

from pathlib import Path
from typing import Annotated

import typer

from embedctl import options, render
from stores.errors import EmbedctlError, UnknownName, suggest

__all__ = ["remove"]


def remove(
    place: Annotated[str, typer.Argument(metavar="PATH", show_default=False, help="a store, or a folder of runs")],
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", show_default=False, help="what of it, as 'embedctl show' lists it")
    ],
    json: options.Json = False,
) -> None:
    """Drop embeddings, epochs or runs.

    Of a store of epochs a NAME is DATASET or DATASET/SUBJECT. What is dropped cannot be brought back, only computed
    again. Nothing is dropped where one of the names is not there. That a run has seen the test images stays on record.

    \b
      embedctl remove embeddings.zarr clip-rn50@blur-9
      embedctl remove epochs.zarr things-eeg2/sub-01
      embedctl remove runs 3f2a9c0d
    """
    from stores.verify import find_places

    path, asked = options.place(place), options.listed("NAME", names)
    (found, kind), *more = find_places(path)
    if found != path or more or kind == "run":
        raise EmbedctlError(f"'{place}' is neither a store nor a folder of runs", "name the one that holds it")
    removers = {"embeddings": _embeddings, "epochs": _epochs, "runs": _runs}
    removed = removers[kind](path, asked)
    if json:
        render.as_json(path=str(path), removed=removed)
    else:
        for name in removed:
            render.line(f"{place}: removed {name}")


def _embeddings(path: Path, names: tuple[str, ...]) -> list[str]:
    from stores.embeddings import EmbeddingStore

    store = EmbeddingStore.open(path)
    with store.lock():
        entries = {entry.group: entry for entry in map(store.resolve, names)}
        for entry in entries.values():
            store.remove(entry)
        store.consolidate()
    return [f"{entry.name}#{entry.key}" for entry in entries.values()]


def _epochs(path: Path, names: tuple[str, ...]) -> list[str]:
    from stores.epochs import EpochStore
    from stores.names import subject_name

    store = EpochStore.open(path)
    known = {f"{d}/{subject_name(subject)}": (d, subject) for d in store.datasets() for subject in store.subjects(d)}
    wanted = {name: [whole for whole in known if name in (whole, whole.partition("/")[0])] for name in names}
    if unknown := [name for name, subjects in wanted.items() if not subjects]:
        raise UnknownName(f"no epochs of '{unknown[0]}' in '{path}'", suggest(unknown[0], [*known, *store.datasets()]))
    found = list(dict.fromkeys(subject for subjects in wanted.values() for subject in subjects))
    for subject in found:
        store.remove(*known[subject])
    return found


def _runs(path: Path, names: tuple[str, ...]) -> list[str]:
    from stores.results import remove_runs

    return remove_runs(path, names)
