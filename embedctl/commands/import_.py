"""``embedctl import``: embeddings that other programs computed."""

from dataclasses import asdict
from typing import Annotated

import typer

from embedctl import config, options, render
from embedctl.again import note_embeddings
from embedctl.options import option, path, place
from stores.names import counted

__all__ = ["import_"]

NAME = typer.Option("--name", metavar="N", help="what the embedding is called in the store", show_default=False)
NPY = typer.Option(
    "--npy",
    metavar="X",
    help="array (image, feature): .npy, .npz, .pt or .safetensors; or AlignVis's folder of one .npy per image; "
    "several are one embedding of all their images",
    show_default=False,
)
IDS = typer.Option(
    "--ids",
    metavar="F",
    help="image id of each row: text with one per line, .csv with a column image or id, or a .json list; "
    "one for each array, none for folders",
    show_default=False,
)
SUFFIX = typer.Option(
    "--suffix", metavar="S", help="of a folder, take the files called IMAGE_S.npy", show_default=False
)
DTYPE = option("extract.dtype", "--dtype", metavar="T")


def import_(
    name: Annotated[str, NAME],
    npy: Annotated[list[str], NPY],
    ids: Annotated[list[str] | None, IDS] = None,
    suffix: Annotated[str, SUFFIX] = "",
    images: options.Images = None,
    store: options.EmbeddingStorePath = None,
    dtype: Annotated[str | None, DTYPE] = None,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Bring embeddings that another program computed into the store.

    They are marked "imported, unverified" wherever they are shown. An image id is the path below the image folder.

    \b
      embedctl import --name atm-vith14 --npy train.npy --ids train.txt --npy test.npy --ids test.txt
      embedctl import --name their-dreamsim --npy image_embeddings --suffix dreamsim_clip_vitb32
    """
    from embedctl.progress import shown
    from pipelines.imports.imports import import_embeddings
    from pipelines.imports.request import ImportRequest
    from stores.embeddings import EmbeddingStore

    chosen = config.load()
    request = ImportRequest(
        name=name,
        arrays=tuple(map(path, npy)),
        ids=tuple(map(path, ids or ())),
        images=path(chosen.value("images", images)),
        store=place(chosen.value("embeddings", store)),
        suffix=suffix,
        dtype=chosen.value("extract.dtype", dtype),
        dry_run=dry_run,
    )
    with shown() as progress:
        report = import_embeddings(request, progress)
    if report.written:
        note_embeddings("import", request, [(report.name, f"{report.name}#{report.key}")])
    if json:
        render.as_json(**asdict(report))
        return
    what = f"'{report.name}' ({report.dim:,} x {report.dtype})"
    if dry_run:
        render.line(
            f"{report.store}: {counted(report.to_do, 'row')} of {what} to import, {report.already:,} there already"
        )
    elif report.written:
        told = f"imported {counted(report.written, 'row')} of {what}, {report.already:,} were there already"
        render.line(f"{report.store}: {told}")
        render.note("nothing can verify them: they are shown as 'imported, unverified'")
        keys = [entry.key for entry in EmbeddingStore.open(request.store).entries() if str(entry.name) == report.name]
        if len(keys) > 1:
            render.note(f"'{report.name}' now has {len(keys)} keys: '{report.name}#{report.key}' means these rows")
    else:
        render.line(f"{report.store}: nothing to do, all {report.already:,} rows of {what} are there already")
