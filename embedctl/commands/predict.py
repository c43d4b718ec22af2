"""``embedctl predict``: a trained run on other recordings."""

from pathlib import Path
from typing import Annotated

import typer

from embedctl import config, options, render
from embedctl.options import path, place
from stores.errors import EmbedctlError
from stores.names import counted, subject_name

__all__ = ["RUN", "TO", "place_of", "predict"]

RUN = typer.Argument(metavar="RUN", show_default=False, help="a run: its name, or its folder")
TO = typer.Option("--to", metavar="DIR", help="folder to write into [default: export/, and what is exported]")
DATASET = typer.Option("--dataset", "-d", metavar="D", help="of the recordings; none given means the run's own")
SUBJECT = typer.Option("--subject", "-s", metavar="S", help="of the recordings; none given means the run's own")
TRAINING = typer.Option("--training", help="take the training images, not the test images", show_default=False)


def predict(
    run: Annotated[str, RUN],
    dataset: Annotated[str, DATASET] = "",
    subject: Annotated[int | None, SUBJECT] = None,
    training: Annotated[bool, TRAINING] = False,
    to: Annotated[str, TO] = "",
    embeddings: options.Embeddings = None,
    epochs: options.Epochs = None,
    runs: options.Runs = None,
    trust: options.Trust = None,
    json: options.Json = False,
) -> None:
    """Apply a trained run to other epochs.

    Writes the brain embedding of each image's mean recording, the images in the same space and the scores of all pairs
    as .npy, the image ids as .json. The recordings need the run's channels and moments.

    \b
      embedctl predict RUN --subject 2
      embedctl predict RUN --training --to brain-embeddings
    """
    from stores.disk import check_writable

    chosen = config.load()
    options.use_code(trust)
    folder, run_id = place_of(run, path(chosen.value("runs", runs)))
    named = [run_id, dataset, "" if subject is None else subject_name(subject), "training" if training else "test"]
    target = path(to) if to else Path("export") / "_".join(filter(None, named))
    check_writable(target)
    from pipelines.export.predict import predict as apply  # PyTorch, two seconds
    from stores.plain_files import write_plain

    found = apply(
        folder,
        run_id,
        epochs=path(chosen.value("epochs", epochs)),
        embeddings=place(chosen.value("embeddings", embeddings)),
        dataset=dataset,
        subject=subject,
        training=training,
    )
    arrays = {"brain": found.brain, "gallery": found.gallery, "scores": found.scores}
    files = write_plain(target, arrays, {"queries": found.queries, "gallery": found.gallery_ids})
    if json:
        render.as_json(files=[str(file) for file in files], n_queries=len(found.queries), **found.figures)
        return
    render.line(f"{target}: {', '.join(file.name for file in files)}")
    top1, top5, chance, ceiling = (
        render.percent(found.figures[name]) for name in ("top1", "top5", "chance", "noise_ceiling")
    )
    reliability = f", split-half reliability {ceiling}" if ceiling else ""
    render.line(
        f"{counted(len(found.queries), 'recording')} among {len(found.gallery_ids):,} images: "
        f"top-1 {top1}, top-5 {top5}, chance {chance}{reliability}"
    )


def place_of(run: str, runs: Path) -> tuple[Path, str]:
    """Return the folder of runs and the name of a run that was named, or whose folder was."""
    folder = path(run)
    if folder.is_dir():
        return folder.parent, folder.name
    if len(folder.parts) > 1:
        raise EmbedctlError(f"no run in '{run}': there is no such folder", "embedctl results lists the runs")
    return runs, run
