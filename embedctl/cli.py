"""The command line: which commands there are, and nothing else.

Every command is a thin reading of a function that Python can call as well. Nothing heavy is
imported here: a command imports its pipeline when it runs.
"""

import os
from typing import Annotated

import typer

from embedctl import __version__, render
from embedctl.commands.compare import compare
from embedctl.commands.datasets import datasets
from embedctl.commands.demo import demo
from embedctl.commands.doctor import doctor
from embedctl.commands.export import export
from embedctl.commands.extract import extract
from embedctl.commands.import_ import import_
from embedctl.commands.init import init
from embedctl.commands.interpret import interpret
from embedctl.commands.merge import merge
from embedctl.commands.models import models
from embedctl.commands.predict import predict
from embedctl.commands.preprocess import preprocess
from embedctl.commands.remove import remove
from embedctl.commands.repair import repair
from embedctl.commands.report import report
from embedctl.commands.reproduce import reproduce
from embedctl.commands.results import results
from embedctl.commands.screen import screen
from embedctl.commands.show import show
from embedctl.commands.train import train
from embedctl.commands.verify import verify
from embedctl.group import Commands, end_cleanly_when_terminated, end_undisturbed

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    name="embedctl",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(asked: bool) -> None:
    if asked:
        render.line(f"embedctl {__version__}")
        raise typer.Exit


@app.callback(epilog="Try 'embedctl demo' first: it needs no data and no download.")
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show the traceback of a bug; may stand anywhere")] = False,
) -> None:
    """Find out which image models brain signals align with.

    Images become embeddings, recordings become epochs, and brain encoders are trained on both:
    every image encoder, subject and seed in minutes.
    """


app.command()(demo)
app.command()(init)
app.command()(doctor)
app.command()(extract)
app.command("import")(import_)
app.command()(preprocess)
app.command()(train)
app.command()(screen)
app.command()(results)
app.command()(compare)
app.command()(reproduce)
app.command()(interpret)
app.command()(report)
app.command()(predict)
app.command()(export)
app.command()(show)
app.command()(verify)
app.command()(repair)
app.command()(remove)
app.command()(merge)
app.add_typer(models, name="models")
app.add_typer(datasets, name="datasets")


def main() -> None:
    """Run the program."""
    # Else the processes that dask starts look into the workspace for the modules they import, whoever made it.
    os.environ["PYTHONSAFEPATH"] = "1"
    end_cleanly_when_terminated()
    try:
        app()
    finally:
        end_undisturbed()
