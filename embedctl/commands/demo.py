"""``embedctl demo``: everything once, on data made on the spot."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedctl import render

if TYPE_CHECKING:
    from embedctl.demo import DemoReport

__all__ = ["demo"]

HONESTLY = "The recordings of this demo are simulated: one encoder's embedding was planted in noise, to be found again."


def demo(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", show_default=False, help="workspace to make [default: embedctl-demo]")
    ] = "embedctl-demo",
) -> None:
    """Make a small workspace and run everything in it: no data, no download, a few minutes.

    It draws images, simulates EEG recordings of two people from the embeddings of one encoder, runs
    extract, preprocess and train on them, and ranks the encoders: the planted one must come first.

    \b
      embedctl demo
      embedctl demo elsewhere
    """
    render.line(HONESTLY)
    from embedctl.demo import demo as run
    from embedctl.progress import shown

    with shown() as progress:
        report = run(Path(folder).expanduser(), progress)
    _tell(report)


def _tell(report: "DemoReport") -> None:
    from embedctl.commands import extract, preprocess, train

    for title, stage, said in (
        ("images to embeddings", extract.tell, report.extracted),
        ("recordings to epochs", preprocess.tell, report.preprocessed),
        ("both to brain encoders", train.tell, report.trained),
    ):
        render.line()
        render.line(title)
        stage(said)  # type: ignore[operator]
