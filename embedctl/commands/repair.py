"""``embedctl repair``: drop what is damaged, so that it is computed again and nothing else is."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import options, render

if TYPE_CHECKING:
    from stores.repair import Repair

__all__ = ["repair"]


def repair(
    place: Annotated[
        str, typer.Argument(metavar="PATH", show_default=False, help="a store, runs, one run, or a workspace")
    ],
    json: options.Json = False,
) -> None:
    """Undo damage, and say what must be computed again.

    What is dropped counts as not computed: the command that is printed computes it, and nothing else. Exit code 4 if
    something is left that cannot be repaired.

    \b
      embedctl repair .
      embedctl repair embeddings.zarr
    """
    from embedctl.commands.verify import as_fields, show_damage
    from stores.repair import repair as undo
    from stores.verify import find_places, judged, plan

    places = find_places(options.path(place))
    done = [undo(path, kind) for path, kind in places]
    left = [damage for path, kind in places for damage in judged(plan(path, kind))]
    if json:
        fields = [
            {
                "path": str(what.store),
                "kind": what.kind,
                "found": [as_fields(damage) for damage in what.found],
                "restored": list(map(str, what.restored)),
                "dropped": what.dropped,
                "lost": what.lost,
                "next": _next(what),
            }
            for what in done
        ]
        render.as_json(places=fields, left=[as_fields(damage) for damage in left])
    else:
        for what in done:
            _show(what)
        show_damage(left)
    if left:
        raise typer.Exit(4)


def _show(what: "Repair") -> None:
    if not what.found:
        render.line(f"{what.store}: nothing is damaged")
        return
    render.line(f"{what.store}: {len(what.found):,} damaged")
    for file in what.restored:
        render.line(f"  restored  {file.relative_to(what.store)}")
    for part in what.dropped:
        render.line(f"  dropped   what was damaged of {part}")
    for part in what.lost:
        render.line(f"  lost      {part}, all of it")
    for command in _next(what):
        render.line(f"  next      {command}")


def _next(what: "Repair") -> list[str]:
    """Return the commands that compute what is missing now."""
    from stores.screens import SCREENS

    parts = [part for part in (*what.dropped, *what.lost) if part != SCREENS]  # nothing computes who has seen a test
    if not parts:
        return []
    if what.kind == "embeddings":
        names = ",".join(sorted({part.partition("#")[0] for part in parts}))
        if seed := _seed(what.store, parts):
            return [f"embedctl extract --model {names} --store {what.store} --weights {seed}"]
        return [f"embedctl extract --model {names} --store {what.store}"]
    if what.kind == "runs":
        return [f"embedctl train --runs {what.store}"]
    by_dataset: dict[str, list[str]] = {}
    for part in parts:
        dataset, _, subject = part.partition("/")
        by_dataset.setdefault(dataset, []).append(str(int(subject.removeprefix("sub-"))))
    return [
        f"embedctl preprocess --dataset {dataset} --subject {','.join(subjects)} --store {what.store}"
        for dataset, subjects in by_dataset.items()
    ]


def _seed(store: Path, parts: list[str]) -> str:
    """Return the random weights of these embeddings, where they have the same."""
    from stores.embeddings import EmbeddingStore

    entries = EmbeddingStore.open(store).entries()
    said = {str(e.provenance.get("weights")) for e in entries if f"{e.name}#{e.key}" in parts}
    seeds = sorted(weights for weights in said if weights.startswith("random:"))
    return seeds[0] if len(seeds) == 1 else ""
