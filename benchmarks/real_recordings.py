"""Compare dataset `mne` with MNE's own Epochs on real recordings, which are brought along and never committed.

::

    git clone --filter=blob:none https://github.com/mne-tools/mne-python
    python benchmarks/real_recordings.py mne-python

Events are invented: the files are seconds long, so eight images are shown at samples spread over each. Ends with code 1
if a number differs by more than 1e-5 of the largest.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import mne
import numpy as np

from pipelines.preprocess.channels import canonical_names
from pipelines.preprocess.preprocess import preprocess
from pipelines.preprocess.request import PreprocessRequest
from stores.epochs import EpochStore

FILES = {
    "BrainVision": ["mne/io/brainvision/tests/data/test.vhdr", "test.eeg", "test.vmrk"],
    "EDF": ["mne/io/edf/tests/data/test_stim_channel.edf"],
    "KIT": ["mne/io/kit/tests/data/test.sqd"],
    "CTF, as fif": ["mne/io/tests/data/test_ctf_comp_raw.fif"],
    "4D, as fif": ["mne/io/bti/tests/data/exported4D_solaris_raw.fif"],
}
IMAGES = [f"training_images/a{k}_01b.jpg" for k in range(6)] + [f"test_images/t{k}_01b.jpg" for k in range(2)]


def compare(path: Path, others: list[str]) -> tuple[int, float]:
    """Return how many channels a recording has, and the largest difference as a fraction of the largest value."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "raw/sub-01"
        folder.mkdir(parents=True)
        copy = folder / path.name
        for name in (path.name, *others):
            shutil.copy(path.with_name(name), folder / name)
        raw = mne.io.read_raw(copy, preload=True, verbose="error")
        raw.rename_channels(dict(zip(raw.ch_names, canonical_names(raw.ch_names), strict=True)))
        sfreq, n = raw.info["sfreq"], raw.n_times
        before, length = round(0.05 * sfreq), round(0.1 * sfreq)
        samples = np.linspace(before + 1, n - length - 2, len(IMAGES)).astype(int)
        stem = path.name.removesuffix("".join(Path(path.name).suffixes)).removesuffix("_raw")
        lines = [f"{at}\t{image}" for at, image in zip(samples, IMAGES, strict=True)]
        (folder / f"{stem}_events.tsv").write_text("\n".join(["sample\timage", *lines]) + "\n")
        recipe = Path(work) / "plain.toml"
        recipe.write_text(
            f'base = "clean"\nmvnn = "none"\ndtype = "float32"\ncompute = "float64"\nbad_channels = "keep"\n'
            f"sfreq = {sfreq}\nepoch = [{-before / sfreq!r}, {length / sfreq!r}]\n"
            f"window = [0.0, {length / sfreq!r}]\nbaseline = [{-before / sfreq!r}, 0.0]\n"
        )
        store = Path(work) / "epochs.zarr"
        preprocess(PreprocessRequest(dataset="mne", raw=folder.parent, store=store, recipe=str(recipe)))
        found = EpochStore.open(store)["mne", 1]
        events = np.column_stack([samples + raw.first_samp, 0 * samples, np.arange(len(samples)) + 1])
        epochs = mne.Epochs(
            raw, events, tmin=-before / sfreq, tmax=length / sfreq, baseline=(None, 0), preload=True, verbose="error"
        )
        unit = 1e6 if found.modality == "eeg" else 1e15
        theirs = epochs.get_data(picks=found.ch_names)[:, :, before : before + length] * unit
        ours = np.concatenate([found.train.mean, found.test.mean])
        return len(found.ch_names), float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def main(checkout: Path) -> int:
    """Compare every file, and return the exit code."""
    worst = 0.0
    for kind, (name, *others) in FILES.items():
        n_chans, difference = compare(checkout / name, others)
        worst = max(worst, difference)
        print(f"{kind:30} {name:55} {n_chans:4} channels  {difference:.1e}")
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
