"""What the halves of dataset `mne` share: who is there, which channels, and which row of a table shows which image."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipelines.preprocess.bids import label, numbered
from pipelines.preprocess.dataset import Preflight, Problem
from pipelines.preprocess.recipes import Recipe
from pipelines.preprocess.trial_recipes import TrialRecipe
from stores.errors import UnknownName
from stores.names import subject_name

__all__ = ["COLUMNS", "IMAGE", "SI", "Named", "kinds_of", "most_of"]

IMAGE = re.compile(r".*\.(jpe?g|png|bmp|tiff?|webp|gif)", re.IGNORECASE)
COLUMNS = ("image", "stim_file", "image_path", "stimulus", "stim", "file")
SI = {"eeg": (1e6, "uV"), "mag": (1e15, "fT"), "grad": (1e13, "fT/cm")}

R = TypeVar("R", Recipe, TrialRecipe)

_SPLITS = {"train": "train", "training": "train", "test": "test", **dict.fromkeys(("", "n/a", "nan", "none"), "")}


def kinds_of(inst: Any) -> dict[str, list[str]]:
    """Return the names of EEG channels, magnetometers and gradiometers, those marked bad left out."""
    types = zip(inst.ch_names, inst.get_channel_types(), strict=True)
    kinds: dict[str, list[str]] = {}
    for name, kind in types:
        if name not in inst.info["bads"]:
            kinds.setdefault(kind, []).append(name)
    return kinds


def most_of(kinds: dict[str, list[str]], among: Iterable[str]) -> str:
    """Return the kind of channel there are most of; the first of those where several are."""
    return max(among, key=lambda kind: len(kinds.get(kind, [])))


def _split_of(image: str) -> str:
    """Return the split that an image's path tells; empty where it tells none."""
    for part in image.lower().split("/"):
        if re.search(r"(^|_)test", part):
            return "test"
        if re.search(r"(^|_)train", part):
            return "train"
    return ""


class Named(Generic[R]):
    """What both kinds of dataset share: who is there, and what the rows of a table of events are.

    Parameters
    ----------
    raw : Path
        Folder that holds them.
    files : dict of int to list of Path
        The files of every subject.
    column : str
        Which column of the events, or of the metadata, names the image; empty to look for it.
    wrong : list of Problem
        What is wrong with ``recording.toml``.
    recipe : Recipe or TrialRecipe
        How to cut and whiten, or what becomes of the epochs.
    """

    def __init__(self, raw: Path, files: dict[int, list[Path]], column: str, wrong: list[Problem], recipe: R) -> None:
        self.raw, self.files, self.column, self.wrong = raw, files, column, wrong
        self.recipe: R = recipe

    def examine(self, subject: int) -> Any:
        """Return a `Preflight` with all that is wrong with a subject's files."""
        raise NotImplementedError

    def preflight(self, subject: int) -> Any:
        """Return all that is wrong with a subject: with ``recording.toml``, then with its files."""
        flight = self.examine(subject)
        flight.problems[:0] = self.wrong
        return flight

    def subjects(self) -> list[int]:
        """Return who is there."""
        return sorted(self.files)

    def files_of(self, subject: int) -> list[Path]:
        """Return the files of a subject, or say which subjects there are."""
        if subject not in self.files:
            known = ", ".join(map(str, self.subjects()))
            raise UnknownName(f"no subject {subject} in {self.raw}", f"there: {known}; see --subject")
        return self.files[subject]

    def sessions_of(self, flight: Preflight) -> dict[Path, int]:
        """Return the session of every file of a subject, adding a note where their labels are no numbers."""
        labels = {path: label(path.relative_to(self.raw), "ses") for path in self.files_of(flight.subject)}
        numbers = numbered(labels.values())
        if list(numbers) != [""] and any(not name.isdigit() or int(name) != n for name, n in numbers.items()):
            said = ", ".join(f"{name or 'no session'} is {number}" for name, number in numbers.items())
            flight.notes.append(f"{subject_name(flight.subject)}: sessions are numbered: {said}")
        return {path: numbers[name] for path, name in labels.items()}

    def short(self, path: Path) -> str:
        """Return the part of a path that identifies it."""
        return path.relative_to(self.raw).as_posix()

    def shown(self, flight: Preflight, where: str, table: dict[str, list[str]]) -> tuple[list[str], list[str]]:
        """Return image and split of every row, empty where the row shows no image, adding what is wrong."""
        names = [self.column] if self.column else [name for name in COLUMNS if name in table]
        if not names or names[0] not in table:
            what = f"no column '{self.column}'" if self.column else f"no column of {', '.join(COLUMNS)}"
            fix = f'it has {", ".join(table) or "none"}: name one in recording.toml, as image = "stim_file"'
            flight.problems.append(Problem(where, "image", what, fix))
            return [], []
        images = [text.replace("\\", "/") if text not in ("", "n/a", "nan", "None") else "" for text in table[names[0]]]
        given = table.get("split", [""] * len(images))
        splits = []
        for row, (image, word) in enumerate(zip(images, given, strict=True)):
            if image and word.lower() not in _SPLITS:
                what = f"row {row + 1}: {word!r}"
                flight.problems.append(Problem(where, "split", what, "write train or test, or leave it to the path"))
                return [], []
            split = _SPLITS.get(word.lower(), "") or _split_of(image)
            splits.append(split if image else "")
            if image and not split:
                what = f"row {row + 1}, {image}: neither a column 'split' nor the path says train or test"
                flight.problems.append(Problem(where, "split", what, "add a column split with train or test"))
                return [], []
        if not any(images):
            flight.problems.append(Problem(where, "image", "no event names an image", "is this the right column?"))
        return images, splits
