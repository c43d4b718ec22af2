"""``embedctl repair``: drop what is damaged, so that it is computed again and nothing else is."""

import re
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedctl import options, render
from stores.errors import DamagedStore, EmbedctlError

if TYPE_CHECKING:
    from stores.repair import Repair

__all__ = ["repair"]

IMAGES = typer.Option(
    "--images", metavar="DIR", show_default=False, help="the store's images, if its table of them is lost"
)


def repair(
    place: Annotated[
        str, typer.Argument(metavar="PATH", show_default=False, help="a store, runs, one run, or a workspace")
    ],
    images: Annotated[str | None, IMAGES] = None,
    json: options.Json = False,
) -> None:
    """Undo damage, and say what must be computed again.

    What is dropped counts as not computed: the command that is printed computes it, and nothing else. Exit code 4 if
    something is left that cannot be repaired.

    \b
      embedctl repair .
      embedctl repair embeddings.zarr
      embedctl repair embeddings.zarr --images images
    """
    from functools import partial

    from embedctl.commands.verify import as_fields, show_damage
    from stores.repair import repair as undo
    from stores.verify import find_places, judged, plan

    places = find_places(options.place(place))
    records_of = None
    if images:
        from pipelines.extract.records import records_from

        if not (folder := options.path(images)).exists():
            raise EmbedctlError(f"nothing at '{images}'", "name the images that the store was made from")
        records_of = partial(records_from, folder)
    done, problems = [], []
    for path, kind in places:  # what cannot be repaired keeps nothing else from it
        try:
            done.append(undo(path, kind, records_of))
            problems += [done[-1].problem] if done[-1].problem else []
        except DamagedStore as problem:
            problems.append(problem)
    left = [damage for path, kind in places for damage in judged(plan(path, kind))]
    if json:
        fields = [_fields(what) for what in done]
        render.as_json(places=fields, left=[as_fields(damage) for damage in left])
    else:
        for what in done:
            _show(what)
        show_damage(left)
    if problems:
        raise problems[0]
    if left:
        raise typer.Exit(4)


def _fields(what: "Repair") -> dict[str, Any]:
    from embedctl.commands.verify import as_fields

    commands, left_out = _next(what)
    return {
        "path": str(what.store),
        "kind": what.kind,
        "found": [as_fields(damage) for damage in what.found],
        "restored": list(map(str, what.restored)),
        "dropped": what.dropped,
        "lost": what.lost,
        "unhashed": list(map(str, what.unhashed)),
        "strays": list(map(str, what.strays)),
        "next": commands,
        "left_out": left_out,
    }


def _show(what: "Repair") -> None:
    if not what.found:
        render.line(f"{what.store}: nothing is damaged")
        return
    render.line(f"{what.store}: {len(what.found):,} damaged")
    for file in what.restored:
        render.line(f"  restored  {file.relative_to(what.store)}")
    for file in what.unhashed:
        render.line(f"  rewritten {file.relative_to(what.store)}, without hashes: changes until now go unnoticed")
    for part in what.dropped:
        render.line(f"  dropped   what was damaged of {part}")
    for part in what.lost:
        render.line(f"  lost      {part}, all of it")
    for folder in what.strays:
        render.line(f"  removed   {folder.relative_to(what.store)}, which held something else than its name says")
    commands, left_out = _next(what)
    for command in commands:
        render.line(f"  next      {command}")
    for text in left_out:
        render.line(f"  left out  {text}")


def _next(what: "Repair") -> tuple[list[str], list[str]]:
    """Return the commands that compute what is missing now, and what the store had noted and is not among them."""
    from embedctl.again import noted
    from stores.layout import private
    from stores.screens import SCREENS

    gone = dict.fromkeys((*what.dropped, *what.lost))
    parts = [part for part in gone if part != SCREENS]  # nothing computes who has seen a test
    if what.kind == "runs":
        return _next_of_runs(what, parts)
    hidden = private(what.store / _ARRAYS[what.kind])
    lines, unknown, left_out = noted(hidden, parts, what.store, what.kind)
    return lines + (_from_the_store(what, unknown) if unknown else []), left_out


_ARRAYS = {"embeddings": "image", "epochs": "subject"}


def _next_of_runs(what: "Repair", parts: list[str]) -> tuple[list[str], list[str]]:
    """Return what trains runs again, and what computes anew that which lay beside them."""
    from embedctl.again import noted

    hidden, runs = what.store / ".embedctl", [part for part in parts if "/" not in part]
    lines, unknown, left_out = noted(hidden, runs, what.store, what.kind)
    here = quote(str(what.store))
    beside = {part.partition("/")[2].partition("-")[2] for part in parts if part not in runs}
    interpret = [f"embedctl interpret --runs {here} --method {quote(method)}" for method in sorted(beside)]
    return lines + [f"embedctl train --runs {here}"] * bool(unknown) + interpret, left_out


def _from_the_store(what: "Repair", parts: list[str]) -> list[str]:
    """Return what is known of a command that nobody noted: it was called from Python, or its note is lost."""
    store = quote(str(what.store))
    if what.kind == "embeddings":
        names = quote(",".join(sorted({part.partition("#")[0] for part in parts})))
        if seed := _seed(what.store, parts):
            return [f"embedctl extract --model {names} --store {store} --weights {seed}"]
        return [f"embedctl extract --model {names} --store {store}"]
    by_dataset: dict[str, list[str]] = {}
    for part in parts:
        dataset, _, subject = part.partition("/")
        if (number := subject.removeprefix("sub-")).isdecimal():
            by_dataset.setdefault(dataset, []).append(str(int(number)))
    return [
        f"embedctl preprocess --dataset {quote(dataset)} --subject {','.join(subjects)} --store {store}"
        for dataset, subjects in by_dataset.items()
    ]


def _seed(store: Path, parts: list[str]) -> str:
    """Return the random weights of these embeddings, where they have the same."""
    from stores.embeddings import EmbeddingStore

    try:
        entries = EmbeddingStore.open(store).entries()
    except EmbedctlError:  # something is left that cannot be repaired
        return ""
    said = {str(e.provenance.get("weights")) for e in entries if f"{e.name}#{e.key}" in parts}
    seeds = sorted(weights for weights in said if re.fullmatch(r"random:\d+", weights))
    return seeds[0] if len(seeds) == 1 else ""
