"""``embedctl merge``: bring what another store has."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

import typer

from embedctl import options, render

__all__ = ["merge"]


def merge(
    into: Annotated[str, typer.Argument(metavar="A", show_default=False, help="the store that gets more")],
    source: Annotated[str, typer.Argument(metavar="B", show_default=False, help="the store that is only read")],
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Bring what store B has and store A lacks.

    Embeddings, images and rows come; B stays as it is. Images are the same where their ids and contents are; rows
    where name and key are. Stores that contradict each other are refused before anything is written. Interrupted, it
    goes on where it was.

    \b
      embedctl merge embeddings.zarr from-the-cluster.zarr
    """
    from embedctl.progress import shown
    from stores.merge import merge as join
    from stores.names import counted

    with shown() as progress:

        def begin(n_rows: int) -> Callable[[int], None]:
            progress.start("merge", n_rows, "rows")
            return progress.advance

        done = join(options.place(into), options.place(source), dry_run=dry_run, begin=begin)
    if json:
        render.as_json(dry_run=dry_run, **asdict(done))
        return
    verb = "to bring" if dry_run else "brought"
    rows = [(one.name, f"{one.rows:,}", f"{one.already:,}", f"{one.absent:,}") for one in done.embeddings]
    counts = (verb, "already there", "skipped")
    render.table(("embedding", *counts), rows, right=counts)
    render.line(f"{into}: {verb} {render.size(done.bytes)}, {counted(done.images, 'new image')}")
