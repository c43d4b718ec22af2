"""A small workspace, the commands on it, and what must be true of it whenever one looks.

The commands run in this process, where a tenth of a second is enough for one. The clock stands still for them, because
dates and seconds are the only bytes of a store that may differ, and pictures are one constant, though written like
pictures. All of it lies in memory, where flushing to the disk costs nothing.
"""

import contextlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import typer
from PIL import Image

from embedctl.cli import app
from stores.again import COMMANDS
from stores.checks import Damage
from stores.commits import DRAFT
from stores.embeddings import EmbeddingStore
from stores.epochs import EpochStore
from stores.errors import DamagedStore, EmbedctlError
from stores.owners import is_running
from stores.speed import SPEED
from stores.verify import find_places
from tests import damage

MODELS = "pixels,colour-histogram"
TRAINING = [f"training_images/{c:05d}_c{c:02d}/c{c:02d}_{i:02d}s.png" for c in range(1, 7) for i in (1, 2)]
TEST = [f"test_images/{c:05d}_t{c:02d}/t{c:02d}_01s.png" for c in range(1, 5)]
OTHERS = [f"others/{n:03d}.png" for n in range(54)]
RECIPE = 'base = "demo"\npasses = 2\nbatch = 8\ndim = 16\n'


class Inputs:
    """What the commands read: images, recordings, a recipe, another program's numbers. Never written to again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> str:
        return str(self.folder / name)

    def make(self) -> None:
        """Write the images; the recordings wait for the embeddings that drive them."""
        for name, ids in {"few": TRAINING + TEST, "many": TRAINING + TEST + OTHERS}.items():
            for n, image in enumerate(ids):
                put_image(self.folder / name / image, n)
        shutil.copytree(self.folder / "few", self.folder / "changed")
        for n in (0, 5):
            put_image(self.folder / "changed" / TRAINING[n], 100 + n)
        (self.folder / "recipe.toml").write_text(RECIPE)
        (self.folder / "ids.txt").write_text("".join(f"{image}\n" for image in TRAINING))
        np.save(self.folder / "theirs.npy", np.arange(len(TRAINING) * 3.0, dtype="f4").reshape(-1, 3))

    def record(self, store: Path) -> None:
        """Write recordings of two subjects in the raw format of THINGS-EEG2."""
        from pipelines.simulate.recordings import simulate_things_eeg2

        pixels = EmbeddingStore.open(store)["pixels"]
        rows = dict(zip(pixels.image_ids, pixels.values, strict=True))
        options = {"sessions": 2, "test_repetitions": 4, "ch_names": ("Pz", "O1", "Oz", "O2"), "n_sources": 2}
        simulate_things_eeg2(self.folder / "raw", TRAINING, TEST, rows, subjects=[1, 2], **options)


def put_image(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)).save(file)


def make_world(folder: Path) -> None:
    """Fill ``folder`` with ``inputs`` and with ``whole``, the workspace that the commands make of them."""
    given = Inputs(folder / "inputs")
    given.make()
    whole = folder / "whole"
    whole.mkdir()
    run(whole, extract(given, "few"))
    given.record(whole / "embeddings.zarr")
    run(whole, preprocess(given, "1"))
    shutil.copytree(whole, folder / "one-subject")
    run(whole, preprocess(given, "2"))
    run(whole, train(given, whole))
    run(folder, extract(given, "few", "--store", "other.zarr", models="hog"))


def extract(given: Inputs, images: str, *more: str, models: str = MODELS) -> list[str]:
    return ["extract", "--model", models, "--images", getattr(given, images), "--batch-size", "8", *more]


def preprocess(given: Inputs, subject: str) -> list[str]:
    return ["preprocess", "--dataset", "things-eeg2", "--raw", given.raw, "--subject", subject]


def stores_of(whole: Path) -> list[str]:
    return ["--embeddings", str(whole / "embeddings.zarr"), "--epochs", str(whole / "epochs.zarr")]


def train(given: Inputs, whole: Path, *more: str) -> list[str]:
    words = ["train", "--brain", "eeg", "--model", "pixels", "--subject", "1", "--seed", "0,1"]
    return [*words, "--recipe", given.__getattr__("recipe.toml"), *stores_of(whole), *more]


# Running a command


@contextlib.contextmanager
def undated() -> Iterator[None]:
    """Stop the clock wherever a store or a run writes down the time."""
    import embedctl.drawing
    import embedctl.quality_page
    import pipelines.extract.provenance
    import pipelines.imports.imports
    import pipelines.train.runner
    import pipelines.train.train

    class Then:
        @staticmethod
        def now(zone: Any) -> Any:
            return SimpleNamespace(isoformat=lambda timespec="": "2026-11-21T00:00:00+00:00")

    places = [(module, "datetime", Then) for module in
              (pipelines.extract.provenance, pipelines.imports.imports, pipelines.train.runner)]  # fmt: skip
    places.append((pipelines.train.train, "time", SimpleNamespace(perf_counter=lambda: 0.0)))
    places.append((embedctl.quality_page, "quality_figure", lambda measured: None))
    places.append((embedctl.quality_page, "_png", lambda figure: b"a picture"))
    places.append((embedctl.drawing, "png", lambda figure: b"a picture"))
    true = [(place, name, getattr(place, name)) for place, name, _ in places]
    for place, name, value in places:
        setattr(place, name, value)
    try:
        yield
    finally:
        for place, name, value in true:
            setattr(place, name, value)


PROGRAM = typer.main.get_command(app)  # made once: it takes longer than many a command


def ended(folder: Path, words: list[str]) -> tuple[int, str]:
    """Run a command in this process, in ``folder``; return the code it ends in, and what it said on stderr."""
    said = io.StringIO()
    with contextlib.chdir(folder), undated(), redirect_stdout(io.StringIO()), redirect_stderr(said):
        try:
            PROGRAM.main(words)
        except SystemExit as end:
            return int(end.code or 0), said.getvalue()
    raise AssertionError("the program did not end")


def run(folder: Path, words: list[str]) -> None:
    """Run a command that must end well."""
    code, said = ended(folder, words)
    assert code == 0, f"embedctl {' '.join(words)} ended with {code}: {said}"


# Looking


def passing(name: str) -> bool:
    """Say whether a file may be there or not: a lock, a draft, how long it took."""
    parts = Path(name).parts
    return (
        bool({"locks", "drafts", COMMANDS} & set(parts))
        or parts[-1] in (SPEED,)
        or any(part.endswith(DRAFT) for part in parts)
    )


def content(folder: Path) -> dict[str, bytes]:
    """Return every file that counts."""
    files = ((str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*")) if path.is_file())
    return {name: path.read_bytes() for name, path in files if not passing(name)}


def times(folder: Path) -> dict[str, int]:
    files = ((str(path.relative_to(folder)), path) for path in sorted(folder.rglob("*")) if path.is_file())
    return {name: path.stat().st_mtime_ns for name, path in files if not passing(name)}


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))


def damages(folder: Path) -> list[Damage]:
    """Return what ``verify`` finds in the stores of a workspace, which may hold none yet."""
    try:
        find_places(folder)
    except EmbedctlError:
        return []
    return damage.damages(folder)


def committed(folder: Path) -> dict[str, Any]:
    """Return what a reader gets of a workspace: rows by embedding and image, subjects, finished runs.

    What is damaged is no number: it is not there.
    """
    found: dict[str, Any] = {}
    if (folder / "embeddings.zarr").exists():
        store = EmbeddingStore.open(folder / "embeddings.zarr")
        for entry in store.entries():
            name = f"{entry.name}#{entry.key}"
            with contextlib.suppress(DamagedStore):
                embedding = store[name]
                for image, row in zip(embedding.image_ids, embedding.values, strict=True):
                    found[f"{name} {image}"] = row.tobytes()
    if (folder / "epochs.zarr").exists():
        epochs = EpochStore.open(folder / "epochs.zarr")
        for dataset in epochs.datasets():
            for subject in epochs.subjects(dataset):
                with contextlib.suppress(DamagedStore):
                    one = epochs[dataset, subject]
                    numbers = one.train.mean.tobytes() + one.test.take(np.arange(len(one.test.image_ids))).tobytes()
                    found[f"{dataset}/{subject}"] = one.key.encode() + numbers
    for receipt in sorted((folder / "runs").glob("*/receipt.json")):
        found[f"run {receipt.parent.name}"] = receipt.read_bytes()
    return found


_MEMORY = Path("/dev/shm")
_OURS = "embedctl-promises-"


@contextlib.contextmanager
def shared_memory() -> Iterator[Path]:
    """Yield a folder in memory, where thousands of small files cost nothing; those of killed tests go."""
    where = _MEMORY if _MEMORY.is_dir() else None
    for left in where.glob(f"{_OURS}*") if where else ():
        if not is_running(int(left.name.removeprefix(_OURS).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{_OURS}{os.getpid()}-", dir=where) as name:
        yield Path(name)
