"""``embedctl datasets``: which recordings to download, from where, and where they go."""

from typing import Annotated

import typer

from embedctl import render
from embedctl.group import DefaultList
from embedctl.options import Json
from pipelines.known_datasets import known_datasets
from stores.errors import UnknownName, suggest

__all__ = ["datasets"]

datasets = typer.Typer(cls=DefaultList, rich_markup_mode=None, help="List the datasets, or show what to download.")


@datasets.command("list")
def _list(json: Json = False) -> None:
    """List the datasets that preprocess reads.

    \b
      embedctl datasets
    """
    found = known_datasets()
    if json:
        render.as_json(datasets=[{"id": name, **facts} for name, facts in found.items()])
        return
    rows = [
        (name, facts["modality"], facts["subjects"], facts["licence"], facts["title"]) for name, facts in found.items()
    ]
    render.table(("dataset", "modality", "subjects", "licence", "what it is"), rows, right=("subjects",))


@datasets.command()
def show(
    dataset: Annotated[str, typer.Argument(metavar="ID", show_default=False, help="a dataset's id")],
    json: Json = False,
) -> None:
    """Show what to download, how large it is and where it goes.

    \b
      embedctl datasets show things-eeg2
    """
    found = known_datasets()
    if dataset not in found:
        raise UnknownName(f"no dataset called '{dataset}'", suggest(dataset, found))
    facts = found[dataset]
    if json:
        render.as_json(dataset={"id": dataset, **facts})
        return
    render.line(facts["title"])
    for field in ("home", "licence", "reference"):
        if field in facts:
            render.line(f"{field:10} {facts[field]}")
    render.line(f"{'recipes':10} {', '.join(facts['recipes'])}, or a file of your own")
    for download in facts["downloads"]:
        render.line()
        render.line(download["what"])
        for field in ("url", "size", "goes"):
            if field in download:
                render.line(f"  {'goes to' if field == 'goes' else field:8} {download[field]}")
    render.line()
    render.line(f"then: embedctl preprocess --dataset {dataset}")
