"""Runs the notebooks and takes the README's pictures, in the workspace of a demo: needs Chromium.

embedctl demo && (cd embedctl-demo && embedctl interpret)
PYTHONPATH="$PWD" python docs/make_pictures.py embedctl-demo
"""

import html
import io
import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from embedctl.report.build import write_page
from embedctl.report.gather import ReportRequest
from tests.browser import browser

DOCS = Path(__file__).parent.absolute()
NOTEBOOKS = ("check_embeddings", "check_epochs", "read_results")
STYLE = (
    "body{font:15px system-ui;max-width:900px;margin:16px 32px}pre{background:#f2f4f7;padding:8px;margin:8px 0}"
    "td,th{text-align:left;padding:1px 12px 1px 0;font-size:13px}h1{font-size:24px}h2{font-size:19px}"
)


def main() -> None:
    """Write docs/*.ipynb and docs/*.png anew."""
    workspace = Path(sys.argv[1]).absolute()
    os.chdir(workspace)  # so that no path of this computer gets into what is shown
    write_page(ReportRequest(), Path("report.html"))
    pages = {name: run(name) for name in NOTEBOOKS}
    shown = workspace / "notebook.html"
    cells = pages["check_embeddings"].cells
    first = next(place for place, cell in enumerate(cells) if cell.source.startswith("## What does it find alike"))
    shown.write_text(as_page([*cells[first : first + 2], *cells[first + 3 :]]), encoding="utf-8")
    with browser() as opened:
        seen = opened((workspace / "report.html").as_uri(), 1280, height=1690, whole=False)
        keep(seen.picture, "report.png", (0, 0, 1280, 1690))
        seen = opened(shown.as_uri(), 1000)
        keep(seen.picture, "notebook.png", (0, 0, 1000, 1230))


def run(name: str) -> nbformat.NotebookNode:
    """Run a notebook in the workspace and keep it with its outputs."""
    notebook = nbformat.read(DOCS / f"{name}.ipynb", 4)
    NotebookClient(notebook, record_timing=False).execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    told = nbformat.writes(notebook).replace(f"{Path.cwd()}{os.sep}", "")  # where on this computer is nobody's business
    (DOCS / f"{name}.ipynb").write_text(told + "\n", encoding="utf-8")
    return notebook


def as_page(cells: list[nbformat.NotebookNode]) -> str:
    """Return cells of a notebook about as a browser shows them."""
    parts = []
    for cell in cells:
        if cell.cell_type == "markdown":
            for block in cell.source.split("\n\n"):
                level = len(block) - len(block.lstrip("#"))
                tag = f"h{level}" if level else "p"
                parts.append(f"<{tag}>{html.escape(block.lstrip('# '))}</{tag}>")
            continue
        parts.append(f"<pre>{html.escape(cell.source)}</pre>")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f'<img src="data:image/png;base64,{data["image/png"]}">')
            elif "text/html" in data:
                parts.append(data["text/html"])
            else:
                parts.append(f"<pre>{html.escape(data.get('text/plain', output.get('text', '')))}</pre>")
    return f'<!doctype html><meta charset="utf-8"><style>{STYLE}</style>{"".join(parts)}'


def keep(picture: bytes, name: str, box: tuple[int, int, int, int]) -> None:
    """Keep a part of a picture, with as many colours as a small file has room for."""
    part = Image.open(io.BytesIO(picture)).convert("RGB").crop(box)
    part.quantize(128, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)


if __name__ == "__main__":
    main()
