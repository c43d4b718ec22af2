"""A complete small workspace, made on the spot: images, simulated recordings, all three stages, the report.

The recordings are generated from the embeddings of *one* encoder (`PLANTED`), so there is a truth to be
found: which encoder, when, where. The stages know nothing of it and are the very functions that the
commands call. Everything is seeded; running it again goes on where it was, or finds that all is there.
"""

import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.progress import SILENT, Progress
from stores.commits import put_bytes, put_json, sweep
from stores.errors import DamagedStore, EmbedctlError

if TYPE_CHECKING:
    from pipelines.extract.request import ExtractReport
    from pipelines.preprocess.request import PreprocessReport
    from pipelines.train.request import TrainReport

__all__ = ["MODELS", "PLANTED", "DemoReport", "demo"]

MODELS = ("pixels", "gabor-pyramid", "hog", "colour-histogram")
PLANTED = "gabor-pyramid"
SUBJECTS = (1, 2)
SEEDS = (0, 1)
DATASET = "things-eeg2"
TRUTH = "planted.json"

CLAIM = "# The workspace of `embedctl demo`: here the stages' own commands do what the demo did.\n"
SETTINGS = f"""{CLAIM}
[extract]
model = {json.dumps(list(MODELS))}

[preprocess]
dataset = "{DATASET}"

[train]
brain = "eeg"
recipe = "demo"
seed = {list(SEEDS)}
"""


@dataclass(frozen=True, slots=True)
class DemoReport:
    """What the demo made, or found.

    Parameters
    ----------
    folder : Path
        The workspace.
    truth : dict
        What was planted, as in ``planted.json``.
    extracted, preprocessed, trained : ExtractReport, PreprocessReport, TrainReport
        What each stage said.
    report : Path
        The page that shows it.
    seconds : float
        Wall time.
    """

    folder: Path
    truth: dict[str, Any]
    extracted: "ExtractReport"
    preprocessed: "PreprocessReport"
    trained: "TrainReport"
    report: Path
    seconds: float


def demo(folder: Path, progress: Progress = SILENT, *, planted: bool = True) -> DemoReport:
    """Make the workspace, run the three stages in it, and write its report.

    Parameters
    ----------
    folder : Path
        New, empty, or the workspace of an earlier demo.
    progress : Progress
        Who listens.
    planted : bool
        Without, the recordings are noise alone and no encoder can be better than chance.

    Raises
    ------
    EmbedctlError
        If the folder holds something else.
    """
    began = time.monotonic()
    _settle(folder)
    truth = _known_truth(folder, progress)
    images = None if truth else _rendered(folder, progress)
    extracted = _extract(folder, progress)
    truth = truth or _recorded(folder, images, planted, progress)
    preprocessed = _preprocess(folder, progress)
    trained = _train(folder, progress)
    page = _report(folder, progress)
    return DemoReport(folder, truth, extracted, preprocessed, trained, page, time.monotonic() - began)


def _settle(folder: Path) -> None:
    """Claim the folder: what is not a demo's is left alone, and so are settings changed since."""
    settings = folder / "embedctl.toml"
    sweep(folder, of=settings.name)  # a demo that was killed before its first file had its name
    if settings.is_file() and settings.read_bytes().startswith(CLAIM.encode()):
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EmbedctlError(f"'{folder}' holds something that no demo made", "name a new folder: embedctl demo DIR")
    put_bytes(settings, SETTINGS.encode())


def _known_truth(folder: Path, progress: Progress) -> dict[str, Any]:
    """Return what an earlier demo planted: where that is written, images and recordings are whole."""
    if not (folder / TRUTH).is_file():
        return {}
    from pipelines.simulate.recordings import Simulation

    progress.say("the images and the recordings are there already")
    try:
        known: dict[str, Any] = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
        if not {"encoder", *(field.name for field in fields(Simulation))} <= set(known):
            raise ValueError("not what was planted")
    except (ValueError, TypeError, RecursionError) as problem:
        raise DamagedStore(
            f"'{folder / TRUTH}' is not what the demo wrote", f"remove '{folder}' and run the demo again"
        ) from problem
    return known


def _rendered(folder: Path, progress: Progress) -> Any:
    from pipelines.simulate.images import render_images

    progress.say("drawing 360 images of 80 concepts")
    return render_images(folder / "images")


def _extract(folder: Path, progress: Progress) -> "ExtractReport":
    from pipelines.extract.extract import extract
    from pipelines.extract.request import ExtractRequest

    request = ExtractRequest(models=MODELS, images=folder / "images", store=folder / "embeddings.zarr")
    report = extract(request, progress)
    _tell_rest(progress, f"{report.already:,} of {report.already + report.written:,} rows", report.already)
    return report


def _recorded(folder: Path, images: Any, planted: bool, progress: Progress) -> dict[str, Any]:
    from pipelines.simulate.recordings import simulate_things_eeg2
    from stores.embeddings import EmbeddingStore

    embedding = EmbeddingStore.open(folder / "embeddings.zarr")[PLANTED]
    rows = dict(zip(embedding.image_ids, embedding.values, strict=True))
    progress.start("simulating recordings", len(SUBJECTS), "subjects")
    for subject in SUBJECTS:  # each has its own stream of random numbers, so one by one is the same as together
        simulation = simulate_things_eeg2(
            folder / "raw" / DATASET, images.training, images.test, rows, subjects=[subject], planted=planted
        )
        progress.advance()
    truth = {"encoder": PLANTED if planted else "", **asdict(simulation), "subjects": list(SUBJECTS)}
    put_json(folder / TRUTH, truth)
    return truth


def _preprocess(folder: Path, progress: Progress) -> "PreprocessReport":
    from pipelines.preprocess.preprocess import preprocess
    from pipelines.preprocess.request import PreprocessRequest

    request = PreprocessRequest(dataset=DATASET, raw=folder / "raw" / DATASET, store=folder / "epochs.zarr")
    report = preprocess(request, progress)
    n_already = sum(subject.state == "already there" for subject in report.subjects)
    _tell_rest(progress, f"{n_already} of {len(report.subjects)} subjects", n_already)
    return report


def _train(folder: Path, progress: Progress) -> "TrainReport":
    from pipelines.train.request import TrainRequest
    from pipelines.train.sweep import train

    request = TrainRequest(
        brain="eeg",
        models=MODELS,
        subjects=SUBJECTS,
        dataset=DATASET,
        seeds=SEEDS,
        recipe="demo",
        embeddings=folder / "embeddings.zarr",
        epochs=folder / "epochs.zarr",
        runs=folder / "runs",
    )
    report = train(request, progress)
    _tell_rest(progress, f"{report.n_already} of {len(report.jobs)} runs", report.n_already)
    return report


def _report(folder: Path, progress: Progress) -> Path:
    from embedctl.report.build import write_page
    from embedctl.report.gather import ReportRequest

    request = ReportRequest(runs=folder / "runs", embeddings=folder / "embeddings.zarr", images=folder / "images")
    write_page(request, folder / "report.html", progress)
    return folder / "report.html"


def _tell_rest(progress: Progress, what: str, n_already: int) -> None:
    if n_already:
        progress.say(f"{what} were there already")
