"""``embedctl verify``: every file that is not the one that was written."""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedctl import options, render
from stores.errors import EmbedctlError
from stores.names import counted

if TYPE_CHECKING:
    from stores.checks import Check, Damage

__all__ = ["as_fields", "show_damage", "verify"]

_SHOWN = 50

QUICK = typer.Option("--quick", help="look at sizes and last bytes alone: what is missing, cut short or swapped")
FULL = typer.Option("--full", help="read every byte [default]")
SAMPLE = typer.Option(
    "--sample",
    metavar="P",
    help="read every byte of a random part, such as 5%, the rest --quick",
    show_default=False,
)


def verify(
    place: Annotated[
        str, typer.Argument(metavar="PATH", show_default=False, help="a store, runs, one run, or a workspace")
    ],
    quick: Annotated[bool, QUICK] = False,
    full: Annotated[bool, FULL] = False,
    sample: Annotated[str, SAMPLE] = "",
    json: options.Json = False,
) -> None:
    """Find damaged files of stores and runs; change nothing.

    Every file is compared with the digest it was written with. Damage is listed with what it hit: embedding, rows and
    images; subject and split; run. Exit code 4 if there is any.

    \b
      embedctl verify .
      embedctl verify embeddings.zarr --quick
      embedctl verify epochs.zarr --sample 5%
    """
    from embedctl.progress import shown
    from stores.verify import find_places, judged, plan

    chosen = _only_size(quick, full, sample)
    plans = [plan(found, kind) for found, kind in find_places(options.place(place))]
    with shown() as progress:
        for found in plans:
            progress.start(f"verify {found.store.name}", len(found.checks) + len(found.receipts), "files")
            progress.advance(len(found.receipts))
            judged(found, chosen, progress.advance)
    damages = [damage for found in plans for damage in found.damages]
    remarks = [f"{found.store}: {remark}" for found in plans for remark in found.remarks]
    if json:
        places = [{"path": str(p.store), "kind": p.kind, "files": len(p.checks) + len(p.receipts)} for p in plans]
        render.as_json(places=places, damages=[as_fields(damage) for damage in damages], remarks=remarks)
    else:
        for remark in remarks[:_SHOWN]:
            render.note(remark)
        whole = "all as written"
        if quick or sample:
            whole = f"all of the size and last bytes they were written with; {sample or 'none'} read whole"
        for found in plans:
            n_files, n_bad = len(found.checks) + len(found.receipts), len(found.damages)
            render.line(f"{found.store}: {counted(n_files, 'file')}, {f'{n_bad:,} damaged' if n_bad else whole}")
        show_damage(damages)
    if damages:
        render.note("'embedctl repair' drops what is damaged, so that the command that wrote it computes it again")
        raise typer.Exit(4)


def show_damage(damages: "list[Damage]") -> None:
    """Print a line per damage: what it hit, and the file."""
    if not damages:
        return
    render.line()
    columns = ("store", "what", "rows", "images", "file", "problem")
    rows = []
    for damage in damages[:_SHOWN]:
        ranges = ", ".join(f"{start}-{stop - 1}" for start, stop in damage.rows)
        images = f"{damage.images[0]} .. {damage.images[-1]}" if len(damage.images) > 1 else "".join(damage.images)
        file = damage.file.relative_to(damage.store).as_posix()
        rows.append((damage.store.name, damage.part or "all of it", ranges, images, file, damage.problem))
    render.table(columns, rows)
    if len(damages) > _SHOWN:
        render.note(f"and {len(damages) - _SHOWN:,} more (--json lists them all)")


def as_fields(damage: "Damage") -> dict[str, Any]:
    """Return a damage as JSON has it: its place by the words of its kind."""
    fields: dict[str, Any] = {"store": str(damage.store), "kind": damage.kind, "file": str(damage.file)}
    fields["problem"] = damage.problem
    if damage.kind == "embeddings":
        fields["embedding"] = damage.part
    elif damage.kind == "runs":
        fields["run"] = damage.part
    else:
        subject, _, split = damage.part.partition("/")[2].partition("/")
        fields |= {"dataset": damage.part.partition("/")[0], "subject": subject, "split": split}
    return {**fields, "rows": [list(pair) for pair in damage.rows], "images": list(damage.images)}


def _only_size(quick: bool, full: bool, sample: str) -> "Callable[[Check], bool]":
    """Return which files are looked at quickly."""
    if quick + full + bool(sample) > 1:
        raise EmbedctlError("--quick, --full and --sample exclude each other", "give one of them")
    share = 0.0 if quick else 1.0
    if sample:
        try:
            share = float(sample.removesuffix("%")) / 100
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise EmbedctlError(f"--sample cannot be '{sample}'", "give a percentage, such as 5%")
    draw = random.Random()  # another part every time, so that all of it comes up sooner or later
    return lambda check: draw.random() >= share
