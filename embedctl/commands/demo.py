"""``embedctl demo``: everything once, on data made on the spot."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedctl import render
from embedctl.options import path

if TYPE_CHECKING:
    import pyarrow as pa

    from embedctl.demo import DemoReport

__all__ = ["demo"]

HONESTLY = "The recordings of this demo are simulated: one encoder's embedding was planted in noise, to be found again."


def demo(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", show_default=False, help="workspace to make [default: embedctl-demo]")
    ] = "embedctl-demo",
) -> None:
    """Make a small workspace and run everything in it.

    No data, no download, a few minutes. It draws images, simulates EEG recordings of two people from
    the embeddings of one encoder, runs extract, preprocess and train on them, ranks the encoders and writes the report:
    the planted one must come first.

    \b
      embedctl demo
      embedctl demo elsewhere
    """
    render.line(HONESTLY)
    from embedctl.demo import demo as run
    from embedctl.progress import shown

    with shown() as progress:
        report = run(path(folder), progress)
    _tell(report)


def _tell(report: "DemoReport") -> None:
    from embedctl.captions import said
    from embedctl.commands import extract, preprocess, train
    from embedctl.commands.compare import ranked
    from pipelines.train.compare import ranking
    from stores.results import read_results

    _titled("images to embeddings")
    extract.tell(report.extracted)
    _titled("recordings to epochs")
    preprocess.tell(report.preprocessed)
    _titled("both to brain encoders")
    train.tell(report.trained)
    runs = report.folder / "runs"
    rows = ranking(_its_own(read_results(runs), report), runs)
    _titled(said(rows[0].condition))
    ranked(rows)
    _titled(f"planted was {report.truth['encoder']}, {_where(report.truth)}")
    if rows[0].embedding != report.truth["encoder"]:
        raise RuntimeError(f"the demo found {rows[0].embedding}, not {report.truth['encoder']}")
    render.line("The planted encoder comes first.")
    render.line(f"{report.report} shows all of it: open it in a browser.")
    render.line(f"All of it took {report.seconds:.0f} s and lies in {report.folder}. Next:")
    render.line(f"  cd {report.folder}")
    render.line("  embedctl results")
    render.line("  embedctl compare")
    render.line("  embedctl interpret && embedctl report")
    render.line("  embedctl show embeddings.zarr")
    render.line("  embedctl train --model hog --seed 2..4")
    render.line("  embedctl models")


def _its_own(results: "pa.Table", report: "DemoReport") -> "pa.Table":
    """Return the runs of the demo: the workspace may hold others by now."""
    made = {job.run_id for job in report.trained.jobs}
    return results.filter([run_id in made for run_id in results["run_id"].to_pylist()])


def _titled(title: str) -> None:
    render.line()
    render.line(title)


def _where(truth: dict[str, Any]) -> str:
    strongest = sorted(truth["gains"], key=lambda name: -truth["gains"][name])[:3]
    first, last = (round(1000 * truth[name]) for name in ("latency", "last_latency"))
    return f"{first} to {last} ms after the image, strongest at {', '.join(strongest)}"
