"""Any recording or epochs file that MNE reads, a BIDS tree included, with a column or annotation that names the image.

::

    raw/mne/sub-01/[ses-01/][eeg/]sub-01_..._eeg.vhdr      recordings: .vhdr .edf .bdf .gdf .set .fif .cnt .ds .sqd ...
                                  sub-01_..._events.tsv    onset (s) or sample, image, and if that does not tell, split
    raw/mne/sub-01[_ses-01]-epo.fif                        or epochs, the image in their metadata or event names

The column that names the image is ``image``, ``stim_file``, ``image_path``, ``stimulus``, ``stim`` or ``file``: the
first that is there, or ``image = "NAME"`` in ``raw/mne/recording.toml``. Without a table, annotations (or event names)
that end like an image file are images. The split is the column ``split``, else the image's own path tells it:
``training_images/...``, ``test_images/...``. What names no image is counted and left out.
"""

import re
import tomllib
from pathlib import Path

from pipelines.preprocess.bids import RECORDINGS, label
from pipelines.preprocess.dataset import Problem
from pipelines.preprocess.datasets.mne_epoch_files import EpochFiles
from pipelines.preprocess.datasets.mne_named import SI, kinds_of, most_of
from pipelines.preprocess.datasets.mne_recordings import RecordingFiles
from pipelines.preprocess.mne_recording import open_with_mne
from pipelines.preprocess.recipes import read_recipe
from pipelines.preprocess.trial_recipes import read_trial_recipe
from stores.errors import BadRecording

__all__ = ["open_dataset"]

_EPOCHS = re.compile(r".*[-_]epo\.fif(\.gz)?")
_PART = re.compile(r".*-\d+\.fif(\.gz)?")  # the second and further files of one that was split: MNE finds them
_NOT_RAW = {"derivatives", "sourcedata", "stimuli", "code"}  # folders of a BIDS tree


def open_dataset(raw: Path, recipe: str) -> RecordingFiles | EpochFiles:
    """Open the recordings, or the epochs, in ``raw``."""
    if not raw.is_dir():
        raise BadRecording(f"no folder {raw}", "put the recordings there, or name them with --raw")
    found = [
        path
        for path in sorted(raw.rglob("*"))
        if path.name.lower().endswith(RECORDINGS)
        and not _PART.fullmatch(path.name)
        and not _NOT_RAW & set(path.relative_to(raw).parts[:-1])
        and not any(part.startswith(".") or part.endswith((".ds", ".mff")) for part in path.relative_to(raw).parts[:-1])
        and not path.name.startswith(".")
    ]
    files = _of_subjects(raw, found)
    epochs = [path for path in found if _EPOCHS.fullmatch(path.name)]
    if not found:
        raise BadRecording(f"{raw} holds no recording and no epochs", f"MNE reads {' '.join(RECORDINGS)} here")
    if 0 < len(epochs) < len(found):
        other = next(path for path in found if path not in epochs)
        raise BadRecording(
            f"{raw} holds epochs ({epochs[0].name}) and recordings ({other.name})", "put them into two folders: --raw"
        )
    column, wrong = _column_named(raw / "recording.toml")
    if not epochs:
        return RecordingFiles(raw, files, column, wrong, read_recipe(recipe))
    kind = "epochs" if most_of(kinds_of(open_with_mne(found[0], "read_epochs")), SI) == "eeg" else "meg"
    return EpochFiles(raw, files, column, wrong, read_trial_recipe(recipe, kind))


def _of_subjects(raw: Path, found: list[Path]) -> dict[int, list[Path]]:
    """Return the files of every subject; all are of subject 1 where no name says whose they are.

    Raises
    ------
    BadRecording
        If a subject is not called by a number, two by the same, or only some files say whose they are: people must
        never be taken for one.
    """
    labels = {path: label(path.relative_to(raw), "sub") for path in found}
    known = sorted(set(labels.values()))
    if known == [""]:
        return {1: found}
    for path, name in labels.items():
        if not name.isdigit():
            what = f"{path.relative_to(raw)}: " + (f"subject '{name}' has no number" if name else "of which subject?")
            raise BadRecording(what, "name its folder and its files sub-01, sub-02, ...: subjects are numbers here")
    files: dict[int, list[Path]] = {}
    for path, name in labels.items():
        others = files.setdefault(int(name), [])
        if others and labels[others[0]] != name:
            what = f"{path.relative_to(raw)} and {others[0].relative_to(raw)} are both of subject {int(name)}"
            raise BadRecording(what, "name one of them otherwise")
        others.append(path)
    return files


def _column_named(path: Path) -> tuple[str, list[Problem]]:
    """Return the column that ``recording.toml`` names, if it names one, and all that is wrong with the file."""
    if not path.is_file():
        return "", []
    try:
        about = tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        return "", [Problem(path.name, "file", f"is not TOML: {problem}", "correct the line it names")]
    fix = 'only image = "COLUMN" can be said here'
    wrong = [Problem(path.name, key, "an unknown key", fix) for key in sorted(about.keys() - {"image"})]
    column = about.get("image", "")
    if not isinstance(column, str):
        wrong.append(Problem(path.name, "image", f"it is {column!r:.60}, which is no name", fix))
    return column if isinstance(column, str) else "", wrong
