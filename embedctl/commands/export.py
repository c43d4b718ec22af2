"""``embedctl export``: a run, an embedding or a subject's epochs as plain files."""

from pathlib import Path
from typing import Annotated

import typer

from embedctl import config, options, render
from embedctl.commands.predict import TO, place_of
from embedctl.options import path, place
from stores.errors import EmbedctlError
from stores.names import subject_name

__all__ = ["export"]

RUN = typer.Argument(metavar="[RUN]", show_default=False, help="a run: its name, or its folder")
MODEL = typer.Option("--model", "-m", metavar="E", help="an embedding of the store instead of a run")
DATASET = typer.Option("--dataset", "-d", metavar="D", help="epochs of this dataset instead of a run")
SUBJECT = typer.Option("--subject", "-s", metavar="S", help="with --dataset: of this subject")


def export(
    run: Annotated[str, RUN] = "",
    model: Annotated[str, MODEL] = "",
    dataset: Annotated[str, DATASET] = "",
    subject: Annotated[int | None, SUBJECT] = None,
    to: Annotated[str, TO] = "",
    embeddings: options.Embeddings = None,
    epochs: options.Epochs = None,
    runs: options.Runs = None,
    trust: options.Trust = None,
    json: options.Json = False,
) -> None:
    """Write a run, an embedding or epochs as .npy files, with ids.

    Of a run the brain embeddings of its test images, the gallery in the same space, and the scores; of a subject the
    mean recording of every image. Ids are lists in .json files of the same name.

    \b
      embedctl export RUN
      embedctl export --model pixels
      embedctl export --dataset things-eeg2 --subject 1
    """
    if sum(map(bool, (run, model, dataset))) != 1 or (subject is not None) != bool(dataset):
        raise EmbedctlError("export takes one thing", "name a run, or --model, or --dataset together with --subject")
    from pipelines.export.export import export_embedding, export_epochs, export_run

    chosen = config.load()
    options.use_code(trust)
    target = Path("export")
    if run:
        folder, run_id = place_of(run, path(chosen.value("runs", runs)))
        target = path(to) if to else target / run_id
        files = export_run(folder, run_id, place(chosen.value("embeddings", embeddings)), target)
    elif model:
        target = path(to) if to else target
        files = export_embedding(place(chosen.value("embeddings", embeddings)), model, target)
    else:
        assert subject is not None
        target = path(to) if to else target / f"{dataset}_{subject_name(subject)}"
        files = export_epochs(path(chosen.value("epochs", epochs)), dataset, subject, target)
    if json:
        render.as_json(files=[str(file) for file in files])
    else:
        render.line(f"{target}: {', '.join(file.name for file in files)}")
