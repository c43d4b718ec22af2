"""Workspaces of a stranger: everything a file can do to whoever reads it, made here so that it can be read."""

import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.simulate.recordings import simulate_things_eeg2
from pipelines.train.request import TrainRequest
from pipelines.train.sweep import train
from stores.commits import json_bytes
from stores.receipts import vouch, write_receipt
from tests.photos import write_photographs
from tests.train.conftest import TRAIN_IDS, build_workspace

VICTIM = "victim"


class Payload:
    """What runs when it is unpickled: it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def make(folder: Path) -> Path:
    """Make a whole workspace, and something beside it that nobody may touch."""
    home = folder / "home"
    workspace = build_workspace(home)
    asked = {"brain": "eeg", "recipe": workspace.recipe, "subjects": (1,), "models": ("planted", "unrelated")}
    train(TrainRequest(embeddings=workspace.embeddings, epochs=workspace.epochs, runs=home / "runs", **asked))
    write_photographs(home / "images", 4)
    training, test = ["training_images/1_a/x.jpg", "training_images/2_b/y.jpg"], ["test_images/1_c/z.jpg"]
    rows = {name: np.random.default_rng(n).normal(size=12) for n, name in enumerate(training + test)}
    simulate_things_eeg2(
        home / "raw" / "things-eeg2", training, test, rows,
        subjects=[1], sessions=2, test_repetitions=2, ch_names=("Cz", "O1", "Oz"), n_sources=2,
    )  # fmt: skip
    np.save(home / "mine.npy", np.ones((1, 2), "f4"))
    (home / "mine.txt").write_text(TRAIN_IDS[0] + "\n")
    victim = folder / VICTIM
    shutil.copytree(workspace.embeddings, victim / "embeddings.zarr")
    (victim / "diary.txt").write_text("mine\n")
    (victim / "zarr.json").write_text("{}\n")
    return folder


def reseal(place: Path) -> None:
    """Write every receipt below ``place`` again, so that it vouches for the files as they are now."""
    for receipt in sorted(path for path in place.rglob("*.json") if _is_receipt(path)):
        base = receipt.parent
        if ".embedctl" in receipt.parts:
            while base.name != ".embedctl":
                base = base.parent
            base = base.parent if (base.parent / "results.parquet").exists() else base.parent.parent
        files = {}
        for name, said in json.loads(receipt.read_bytes())["receipt"]["files"].items():
            if (base / name).is_file():
                more = {key: said[key] for key in ("rows", "absent") if key in said}
                files[name] = vouch((base / name).read_bytes(), **more)
        write_receipt(receipt, files)


def _is_receipt(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(b'{"blake2b"')


def seal(receipt: Path, content: object) -> None:
    """Write anything as a receipt with a digest that fits."""
    from stores.commits import digest
    from stores.receipts import _HEAD

    body = content if isinstance(content, bytes) else json_bytes(content)
    receipt.write_bytes(_HEAD % digest(body).encode() + body + b"}\n")


def edit(path: Path, change) -> None:
    """Change a JSON file."""
    node = json.loads(path.read_bytes())
    path.write_text(json.dumps(change(node)))


def said(**more):
    """Return what replaces keys of a node."""
    return lambda node: {**node, **more}


def ours(**more):
    """Return what replaces keys of what embedctl wrote into the attributes."""
    return lambda node: {**node, "attributes": {"embedctl": {**node["attributes"]["embedctl"], **more}}}


def only(**attributes):
    """Return what replaces all that embedctl wrote into the attributes."""
    return lambda node: {**node, "attributes": {"embedctl": attributes}}


def grid(*shape):
    """Return a chunk grid."""
    return {"name": "regular", "configuration": {"chunk_shape": list(shape)}}


DEEP = b"[" * 100_000
HUGE = 10**12
LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
ZSTD = [LITTLE, {"name": "zstd", "configuration": {"level": 3, "checksum": False}}]
GROUP = "embeddings.zarr/planted-00112233aabb"
SUBJECT = "epochs.zarr/things-eeg2/sub-01"

# Metadata that lies, with receipts that fit: where, what, and that it is whole.
LIES = {
    "values of a billion features": (f"{GROUP}/values/zarr.json", said(shape=[112, 10**9], chunk_grid=grid(64, 10**9))),
    "values of a trillion rows": (f"{GROUP}/values/zarr.json", said(shape=[HUGE, 24], chunk_grid=grid(HUGE, 24))),
    "values of another type": (f"{GROUP}/values/zarr.json", said(data_type="float64")),
    "values of texts": (f"{GROUP}/values/zarr.json", said(data_type="string")),
    "values with three axes": (f"{GROUP}/values/zarr.json", said(shape=[112, 24, 1], chunk_grid=grid(64, 24, 1))),
    "values that are packed": (f"{GROUP}/values/zarr.json", said(codecs=ZSTD)),
    "values in chunks of nothing": (f"{GROUP}/values/zarr.json", said(chunk_grid=grid(1, 24))),
    "a number for a fill value": (f"{GROUP}/values/zarr.json", said(fill_value=[1, {}])),
    "a trillion ids": ("embeddings.zarr/image/zarr.json", said(shape=[HUGE])),
    "a trillion ids in a chunk": ("embeddings.zarr/image/zarr.json", said(shape=[HUGE], chunk_grid=grid(HUGE))),
    "ids that are numbers": ("embeddings.zarr/image/zarr.json", said(data_type="int16")),
    "an embedding that says nothing": (f"{GROUP}/zarr.json", only()),
    "an embedding that says nonsense": (
        f"{GROUP}/zarr.json",
        only(weights=3, registry=[1], encoder={}, batch_size="x", device=[], threads={}, token_shape="y", versions=7),
    ),
    "no block rows": ("embeddings.zarr/zarr.json", ours(block_rows=None)),
    "block rows of text": ("embeddings.zarr/zarr.json", ours(block_rows="64")),
    "block rows of zero": ("embeddings.zarr/zarr.json", ours(block_rows=0)),
    "block rows below zero": ("embeddings.zarr/zarr.json", ours(block_rows=-64)),
    "block rows without end": ("embeddings.zarr/zarr.json", ours(block_rows=HUGE)),
    "a subject that says nothing": (f"{SUBJECT}/zarr.json", only()),
    "a subject that says nonsense": (f"{SUBJECT}/zarr.json", only(modality=3, recipe=[], info=[], arrays="x")),
    "sensors that are numbers": (
        f"{SUBJECT}/zarr.json",
        ours(info={"ch_names": 7, "times": "x", "sfreq": "fast", "units": []}),
    ),
    "sensors that are too many": (
        f"{SUBJECT}/zarr.json",
        ours(info={"ch_names": ["a"] * 5000, "times": [0.0, float("1e300")], "sfreq": 1e-300, "units": "V"}),
    ),
    "arrays that lead out": (f"{SUBJECT}/zarr.json", ours(arrays=["../../../../victim", "/etc"])),
    "a split that says nonsense": (f"{SUBJECT}/train/zarr.json", only(n_repetitions="x", keep=3)),
    "repetitions without end": (f"{SUBJECT}/train/zarr.json", ours(n_repetitions=HUGE)),
    "means without end": (f"{SUBJECT}/train/mean/zarr.json", said(shape=[HUGE, 6, 80])),
    "means in chunks without end": (f"{SUBJECT}/train/mean/zarr.json", said(chunk_grid=grid(HUGE, 6, 80))),
    "means of a billion times": (
        f"{SUBJECT}/train/mean/zarr.json",
        said(shape=[96, 6, 10**9], chunk_grid=grid(96, 6, 10**9)),
    ),
    "epochs of whole numbers": (f"{SUBJECT}/train/epochs/zarr.json", said(data_type="int16")),
    "a dataset with no recipe": ("epochs.zarr/things-eeg2/zarr.json", only(kind="dataset", recipe=7)),
    "subjects without end": ("epochs.zarr/subject/zarr.json", said(shape=[HUGE])),
}

TRAVERSAL = {"bytes": 3, "tail": "7b7d0a", "blake2b": "0" * 32}
RECEIPT_LIES = {
    "files that are a number": {"files": 3},
    "files that are a list": {"files": [[]]},
    "no files": {},
    "a list": [],
    "nested without end": DEEP,
    "a file that says nothing": {"files": {"values/c/0/0": {}}},
    "a file above": {"files": {"../../victim/zarr.json": TRAVERSAL, "../victim/diary.txt": TRAVERSAL}},
    "a file at the root": {"files": {"/etc/hostname": TRAVERSAL}},
    "a next that is a number": {"files": {}, "next": 7},
}
ROWS_LIES = {
    "rows without end": {"rows": [[0, 10**15]], "absent": {}},
    "rows below zero": {"rows": [[-5, 3]], "absent": {}},
    "rows that are text": {"rows": "ab", "absent": {}},
    "absent that are not rows": {"rows": [[0, 3]], "absent": {"x": "y"}},
    "absent without end": {"rows": [[0, 3]], "absent": {str(10**15): "y", "70": "\x1b[2J<script>"}},
}


def damaged(home: Path, place: str, change) -> None:
    """Change a file of metadata, and seal what vouches for it."""
    edit(home / place, change)
    reseal(home / place.split("/")[0])


def rows_said(home: Path, rows: dict) -> None:
    """Have a receipt of rows say other rows."""
    receipt = home / GROUP / "values" / ".embedctl" / "receipts" / "000000.json"
    content = json.loads(receipt.read_bytes())["receipt"]
    for said_of in content["files"].values():
        said_of.update(rows)
    seal(receipt, content)


def linked(home: Path, place: str) -> None:
    """Put a link to something outside where a folder of the store was."""
    shutil.rmtree(home / place)
    (home / place).symlink_to(home.parent / VICTIM)


def v2_with_a_pickle(home: Path) -> None:
    """Put a Zarr v2 array whose filter unpickles beside the v3 metadata of an embedding."""
    node = {
        "zarr_format": 2, "shape": [112, 24], "chunks": [64, 24], "dtype": "|O", "fill_value": None, "order": "C",
        "compressor": None, "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}],
    }  # fmt: skip
    values = home / GROUP / "values"
    (values / "zarr.json").unlink()
    (values / ".zarray").write_text(json.dumps(node))
    (values / "0.0").write_bytes(pickle.dumps(Payload(home.parent / "canary")))


def pickled(home: Path, *places: str) -> None:
    """Put a pickle that leaves a canary into files, and seal what vouches for them."""
    for place in places:
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_bytes(pickle.dumps(Payload(home.parent / "canary")))


def pickled_arrays(home: Path) -> None:
    """Write pickles in every format that arrays and weights come in."""
    import torch

    payload = Payload(home.parent / "canary")
    np.save(home / "mine.npy", np.array([payload], dtype=object))
    np.savez(home / "mine.npz", x=np.array([payload], dtype=object))
    torch.save({"x": payload}, home / "mine.pt")
    torch.save(payload, home / "mine.pth", _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(home / "script.pt", "w") as archive:  # what a TorchScript archive looks like
        archive.writestr("a/constants.pkl", b"")
        archive.writestr("a/data.pkl", pickle.dumps(payload))
    (home / "mine.joblib").write_bytes(pickle.dumps(payload))


def pickled_recordings(home: Path) -> None:
    """Write a recording that is a pickle."""
    raw = next((home / "raw").rglob("raw_eeg_training.npy"))
    np.save(raw, {"raw_eeg_data": Payload(home.parent / "canary")}, allow_pickle=True)


def strange_images(home: Path) -> None:
    """Name images as no image should be named, and link to what is none of ours."""
    good = next((home / "images").rglob("*.jpg")).read_bytes()
    for name in NAMES:
        (home / "images" / name).write_bytes(good)
    (home / "images" / "out.jpg").symlink_to(home.parent / VICTIM / "diary.txt")


NAMES = [
    "<script>alert(1)<script>.jpg", "[bold]x.jpg", "\x1b]0;title\x07.jpg",
    "a\nb.jpg", "\u202egpj.exe.jpg", "$\\frac{1}{0}$.jpg", "=cmd|' !A0.jpg", "%s%n.jpg", "-rf.jpg", "con.jpg",
]  # fmt: skip


def strange_archive(home: Path) -> None:
    """Pack an image under a name that leads out, and a link."""
    with tarfile.open(home / "images.tar", "w") as archive:
        for name in ("../../victim/a.jpg", "b.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))


def code_named(home: Path, config: bool = False) -> None:
    """Name a file of code, which leaves a canary: in settings and a recipe, or in what a run is made of."""
    (home / "code.py").write_text(f"import os\nos.mkdir({str(home.parent / 'canary')!r})\n")
    if config:
        (run,) = (path.parent for path in (home / "runs").glob("*/receipt.json") if "planted" in path.parent.name)
        edit(run / "config.json", said(brain_encoder="code.py:Net", own={}))
        reseal(home / "runs")
    else:
        (home / "quick.toml").write_text('base = "modern"\nbrain_encoder = "code.py:Net"\nloss = "code.py:near"\n')
        (home / "embedctl.toml").write_text('[train]\nbrain-encoder = "code.py:Net"\nloss = "code.py:near"\n')


def pipes(home: Path, places: Sequence[str]) -> None:
    """Put pipes, which nobody ever writes to, where files are read."""
    for place in places:
        (home / place).unlink(missing_ok=True)
        (home / place).parent.mkdir(exist_ok=True)
        os.mkfifo(home / place)


def endless_images(home: Path) -> None:
    """Put a pipe, a device, links in circles and a folder among the images."""
    pipes(home, ["images/pipe.jpg"])
    (home / "images" / "zero.png").symlink_to("/dev/zero")
    (home / "images" / "itself.png").symlink_to("itself.png")
    (home / "images" / "above").symlink_to("..")
    (home / "images" / "again").symlink_to(".")
    (home / "images" / "folder.png").mkdir()


def modules_beside(home: Path) -> None:
    """Call files of the workspace like what a program imports."""
    for name in ("torch", "torchaudio", "torchvision", "timm", "open_clip", "numpy", "zarr", "multiprocessing"):
        (home / f"{name}.py").write_text(f"import os\nos.makedirs({str(home.parent / 'canary')!r}, exist_ok=True)\n")


def card_that_unpickles(home: Path) -> None:
    """Have a card of the workspace name a pickle that open_clip's constructor would load."""
    pickled_arrays(home)
    model = '{ name = "RN50", pretrained_image_path = "mine.pt", weights_only = false }'
    given = 'input = { resize = "bicubic", fit = "shortest", resize_to = 224, size = 224, norm = "clip" }'
    (home / "cards").mkdir()
    (home / "cards" / "a.toml").write_text(f'[evil]\nfamily = "open_clip"\ndim = 1024\nmodel = {model}\n{given}\n')
    (home / "embedctl.toml").write_text('cards = "cards"\n[extract]\nmodel = ["evil"]\nweights = "random:0"\n')


def strange_settings(home: Path) -> None:
    """Nest settings without end."""
    (home / "embedctl.toml").write_bytes(b"a = " + DEEP)


def strange_recipe(home: Path) -> None:
    """Nest a recipe, and a list of ids, without end."""
    (home / "quick.toml").write_bytes(b"a = " + DEEP)
    (home / "mine.json").write_bytes(DEEP)


def strange_ids(home: Path) -> None:
    """List ids that are paths, formulas and codes."""
    (home / "mine.csv").write_text("image\n\"=cmd|'/c calc'!A0\"\n")
    (home / "mine.txt").write_bytes("../../victim/\0\x1b[2J\u202e<b>".encode() + b"\n")


def strange_run(home: Path, **files: bytes) -> None:
    """Replace files of a run by anything, and seal it."""
    (receipt,) = (path for path in (home / "runs").glob("*/receipt.json") if "planted" in path.parent.name)
    for name, data in files.items():
        (receipt.parent / name.replace("__", ".")).write_bytes(data)
    reseal(home / "runs")


def npy_of_objects() -> bytes:
    """Return a ``.npy`` file that only unpickling can read."""
    sink = io.BytesIO()
    np.save(sink, np.array([{}], dtype=object), allow_pickle=True)
    return sink.getvalue()
