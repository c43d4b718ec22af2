"""``embedctl report``: one file with everything."""

from json import dumps
from typing import Annotated

import typer

from embedctl import config, options, render
from embedctl.commands.compare import PAIRING
from embedctl.options import path, place
from embedctl.outfile import check_file, put_file
from stores.errors import UnknownName, suggest

__all__ = ["report"]

FORMATS = ("html", "csv", "md", "json")
DEFAULT_NAME = "report.html"


def report(
    form: Annotated[
        str, typer.Option("--format", metavar="F", help="html, or csv (the ranking), md, json (all tables)")
    ] = "html",
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", show_default=False, help=f"[default: {DEFAULT_NAME}, others to stdout]"),
    ] = None,
    pairing: Annotated[str, PAIRING] = "matched_base",
    runs: options.Runs = None,
    embeddings: options.Embeddings = None,
    images: options.Images = None,
) -> None:
    """Write everything the runs say into one HTML file.

    Ranking, aligned against base, what was retrieved, where the evidence lies, health, cost and provenance, each
    picture with its numbers. The file needs no network and runs no script.

    \b
      embedctl report
      embedctl report --format md --out report.md
      embedctl report --format csv
    """
    from embedctl.progress import shown
    from embedctl.report.build import build, write_page
    from embedctl.report.gather import ReportRequest
    from embedctl.report.plain import as_csv, as_markdown, as_plain

    if form not in FORMATS:
        raise UnknownName(f"no format called '{form}'", suggest(form, FORMATS))
    chosen = config.load()
    options.use_cards(chosen)
    request = ReportRequest(
        runs=path(chosen.value("runs", runs)),
        embeddings=place(chosen.value("embeddings", embeddings)),
        images=path(chosen.value("images", images)),
        pairing=pairing,
        cards=path(cards) if (cards := chosen.value("cards", None)) else None,
    )
    file = path(out or DEFAULT_NAME)
    if out or form == "html":
        places = (request.runs, request.embeddings, request.images)
        check_file(file, f".{form}", *places, beside=request.runs)
    if form == "html":
        with shown() as progress:
            size = write_page(request, file, progress)
        render.note(f"{file}: {render.size(size)}, open it in a browser")
        return
    built = build(request)
    if form == "json" and not out:
        render.as_json(**as_plain(built))
        return
    if form == "json":  # a name need not be text that UTF-8 can hold: ASCII with escapes can
        data = (
            dumps({"schema_version": render.SCHEMA_VERSION, **as_plain(built)}, indent=2, default=str) + "\n"
        ).encode()
    else:
        data = (as_csv(built) if form == "csv" else as_markdown(built)).encode("utf-8", "replace")
    if out:
        put_file(file, data)
        render.note(f"{file}: {render.size(len(data))}")
    else:
        for line in data.decode().removesuffix("\n").split("\n"):
            render.line(line)
