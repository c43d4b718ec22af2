"""R10: what a file claims, and what it unpacks to, costs no memory that is not there.

One process opens every bomb; its peak may be 350 MB over that of the libraries it has imported. Most bombs unpack to
400 MB, the largest to 2 GB, or claim terabytes; what is smaller nests or repeats itself without end.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises import bombs

CAP = 350_000_000
ROOT = Path(__file__).parents[2]

OPEN_ALL = """
import json, sys, warnings
from pathlib import Path

import h5py, mne, pyarrow.parquet, scipy.io, torch, zarr
import safetensors.torch
from embedctl.config import load
from embedctl.html import thumbnail
from pipelines.encoders.affine import read_affine
from pipelines.encoders.alignet_saved_model import read_variables
from pipelines.encoders.registry import read_cards
from pipelines.encoders.weights import read_checkpoint
from pipelines.extract.images import BadImage, read
from pipelines.extract.sources import open_images
from pipelines.imports.arrays import read_array
from pipelines.imports.id_lists import read_ids
from pipelines.preprocess.mne_recording import open_with_mne
from pipelines.preprocess.nifti import open_nifti
from pipelines.preprocess.raw_npy import map_pickled
from pipelines.preprocess.resampling import import_mne
from pipelines.preprocess.trial_tables import read_trials
from pipelines.train.recipes import read_recipe
from stores.errors import EmbedctlError
from stores.rows import RawRows

import_mne()
folder = Path(sys.argv[1])
# Of this process alone: ru_maxrss begins at the peak of whoever started it.
peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024
begun = before = peak()

def image(name):
    found = read(folder / "images" / name)
    assert isinstance(found, BadImage), found
    raise OSError(found.reason)

def shown(name):
    assert thumbnail(folder / "images", name) == ""
    raise OSError("nothing is shown")

opening = {
    "14000.png": lambda: image("14000.png"),
    "9500.png": lambda: image("9500.png"),
    "14000.png in a notebook": lambda: shown("14000.png"),
    "9500.png in a notebook": lambda: shown("9500.png"),
    **{name: lambda name=name: open_images(folder / name).read("a.png")
       for name in ("lies.zip", "bomb.zip", "squeezed.zip", "claims.tar")},
    "nsd_stimuli.hdf5": lambda: open_images(folder / "nsd_stimuli.hdf5").read("nsd-00000"),
    **{name: lambda name=name: read_array(folder / name)
       for name in ("claims.npz", "bomb.npz", "header.npz", "claims.npy", "bomb.pt")},
    "transform.npz": lambda: read_affine(folder / "header.npz", 4),
    "model.tar.gz": lambda: read_variables(folder / "model.tar.gz"),
    "sub-01-epo.fif.gz": lambda: open_with_mne(folder / "sub-01-epo.fif.gz", "read_epochs"),
    "mask.nii.gz": lambda: next(open_nifti(folder / "mask.nii.gz").volumes()),
    "array": lambda: RawRows(folder / "array").read(0, 10),
    "trials.parquet": lambda: read_trials(folder / "trials.parquet"),
    "nested.pkl": lambda: map_pickled(folder / "nested.pkl"),
    "long.pkl": lambda: map_pickled(folder / "long.pkl"),
    "deep.json": lambda: read_ids(folder / "deep.json"),
    "deep.toml": lambda: load({}, [folder / "deep.toml"]),
    "deep.toml as a recipe": lambda: read_recipe(str(folder / "deep.toml"), "eeg"),
    "deep.toml as a card": lambda: read_cards(folder),
}
said = {}
for name, open_it in opening.items():
    try:
        open_it()
        said[name] = None
    except (EmbedctlError, OSError) as problem:
        said[name] = [type(problem).__name__, str(problem)[:100], peak() - before]
    before = peak()
print(json.dumps({"said": said, "grown": before - begun}))
"""


@pytest.mark.slow
def test_no_bomb_costs_the_memory_it_asks_for(tmp_path):
    bombs.make(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", OPEN_ALL, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert None not in found["said"].values(), {name: said for name, said in found["said"].items() if said is None}
    assert len(found["said"]) == 26, "as README and docs/promises.md say"
    assert found["grown"] < CAP, found["said"]
