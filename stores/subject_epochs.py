"""The epochs of one subject as a reader sees them: their labels, both splits, means and single repetitions."""

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.commits import digest, json_bytes
from stores.epoch_writer import ALL_TRIALS
from stores.errors import DamagedStore, EmbedctlError
from stores.layout import private, read_array, read_ours
from stores.names import check_folder_name, counted, subject_name
from stores.receipts import Vouchers, read_vouched, settled
from stores.roots import read_strings
from stores.rows import RawRows
from stores.split_writer import block_receipts, missing_blocks
from stores.tables import read_table
from stores.whose import is_of_subject

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SplitEpochs", "SubjectEpochs"]

# What says which channel and which moment a number belongs to, and in what unit it is.
_LABELS = ("ch_names", "times", "sfreq", "units")


class SubjectEpochs:
    """The epochs of one subject. Obtained from a store: ``epochs["things-eeg2", 1]``.

    Parameters
    ----------
    path : Path
        The subject's folder.
    dataset : str
        Name of the dataset.
    subject : int
        Number of the subject.
    """

    def __init__(self, path: Path, dataset: str, subject: int) -> None:
        self.path, self.dataset, self.subject = path, dataset, subject
        read_vouched(path, private(path / "split") / "metadata.json", "zarr.json")
        ours = read_ours(path, modality=str, recipe=dict, info=dict, arrays=list)
        if not is_of_subject(f"{dataset}/{subject_name(subject)}", ours):
            raise DamagedStore(f"'{path}' holds another subject than its name says")
        if not _is_sound(ours["info"]):
            raise DamagedStore(f"'{path}' does not say what was recorded as embedctl does")
        self.modality: str = ours["modality"]
        self.recipe: dict[str, Any] = ours["recipe"]
        self.info: dict[str, Any] = ours["info"]
        self.ch_names: list[str] = self.info.get("ch_names", [])
        self.times = np.array(self.info.get("times", []))
        self.sfreq: float = self.info.get("sfreq", 0.0)
        self.units: str = self.info.get("units", "")
        self._array_names: list[str] = [check_folder_name(str(name), "array") for name in ours["arrays"]]

    @cached_property
    def train(self) -> "SplitEpochs":
        """What the brain encoder may learn from."""
        return self._split("train")

    @cached_property
    def test(self) -> "SplitEpochs":
        """What it is judged by."""
        return self._split("test")

    def _split(self, name: str) -> "SplitEpochs":
        split = SplitEpochs(self.path / name)
        of_mean, said = read_array(split.path / "mean").shape[1:], (len(self.ch_names), len(self.times))
        if len(of_mean) == 2 and of_mean != said:
            raise DamagedStore(f"'{split.path}' has {of_mean} channels and times, and names {said}")
        return split

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The small arrays kept beside the epochs, such as the whitener."""
        return {name: _read_all(self.path / name) for name in self._array_names}

    @cached_property
    def trials(self) -> "pa.Table":
        """One row per event, in the order in which they were seen, whether or not it became an epoch.

        ``kind`` says what it was, ``left_out`` why it has no epoch: null where it has one, as number ``repetition`` of
        ``image_id`` in its ``split``. Of a subject that was stored without the others, those repetitions alone.
        """
        receipt = private(self.path / "split") / "metadata.json"
        if ALL_TRIALS in settled(self.path, receipt):
            read_vouched(self.path, receipt, ALL_TRIALS)
            return read_table(self.path / ALL_TRIALS)
        import pyarrow as pa

        return pa.concat_tables([self.train.trials, self.test.trials], promote_options="permissive")

    @cached_property
    def key(self) -> str:
        """Twelve hex digits that change when the recipe, any stored number or what it is labelled with does."""
        labels = {name: self.info.get(name) for name in _LABELS}
        digests: dict[str, str] = {}
        for split in (folder for name in ("train", "test") if (folder := self.path / name).is_dir()):
            about = settled(split, private(split / "image") / "metadata.json")
            named = {name: about[name] for name in about if name.startswith(("image/c/", "concept/c/"))}
            for name, voucher in {**named, **block_receipts(split)}.items():
                digests[f"{split.name}/{name}"] = voucher["blake2b"]
        return digest(json_bytes([self.recipe, labels, dict(sorted(digests.items()))]))[:12]

    def __repr__(self) -> str:
        held = f"{counted(len(self.ch_names), 'channel')}, {counted(len(self.times), 'time')}"
        return f"<SubjectEpochs {self.dataset} {self.subject}: {held}>"


class SplitEpochs:
    """The epochs of one split.

    Parameters
    ----------
    path : Path
        The split's folder.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise EmbedctlError(f"'{path.parent}' has no split '{path.name}'", "preprocess the dataset again")
        self.path = path
        self._receipt = private(path / "image") / "metadata.json"
        read_vouched(path, self._receipt, "zarr.json")
        ours = read_ours(path, n_repetitions=int, keep=str)
        self.n_repetitions: int = ours["n_repetitions"]
        self.keep: str = ours["keep"]
        self._vouchers: Vouchers = block_receipts(path)
        if lost := missing_blocks(path):  # a subject is placed with all of them
            raise DamagedStore(f"'{path}' has lost the receipts of {counted(len(lost), 'block')} of images")

    @cached_property
    def image_ids(self) -> list[str]:
        """The image of each row, as the dataset names it."""
        return read_strings(self.path / "image", self._receipt)

    @cached_property
    def concepts(self) -> list[str]:
        """The concept of each row."""
        return read_strings(self.path / "concept", self._receipt)

    @cached_property
    def mean(self) -> np.ndarray:
        """Plain mean over valid repetitions, ``(n_images, n_chans, n_times)`` float32 in `SubjectEpochs.units`."""
        return self.read_mean(0, len(self))

    @property
    def mean_shape(self) -> tuple[int, ...]:
        """Shape of `mean`; nothing is read for it."""
        return self._means.shape

    def read_mean(self, start: int, stop: int) -> np.ndarray:
        """Return the rows ``start`` to ``stop`` of `mean`, the latter not included; nothing is kept in memory."""
        return self._means.read(start, stop)

    @cached_property
    def valid(self) -> np.ndarray:
        """Whether each repetition was recorded, ``(n_images, n_repetitions)``."""
        return self._rows("valid").read(0, len(self))

    @cached_property
    def session(self) -> np.ndarray:
        """Session of each repetition, ``(n_images, n_repetitions)``; -1 where there is none that can be used."""
        return self._rows("session").read(0, len(self))

    @cached_property
    def trials(self) -> "pa.Table":
        """One row per repetition of an image, ``valid`` where it has an epoch; `SubjectEpochs.trials` has all."""
        read_vouched(self.path, self._receipt, "image/.embedctl/trials.parquet")
        return read_table(private(self.path / "image") / "trials.parquet")

    def take(self, images: Any) -> np.ndarray:
        """Return single repetitions, ``(n, n_repetitions, n_chans, n_times)`` float32, NaN where not valid.

        Raises
        ------
        EmbedctlError
            If the store keeps the mean alone.
        """
        if self.keep != "all":
            raise EmbedctlError(
                f"'{self.path}' keeps the mean alone",
                "embedctl preprocess --keep all keeps all repetitions, in another store",
            )
        return self._epochs.take(images).astype(np.float32)

    @cached_property
    def _means(self) -> RawRows:
        return self._rows("mean")

    @cached_property
    def _epochs(self) -> RawRows:
        return self._rows("epochs")

    def _rows(self, name: str) -> RawRows:
        read_vouched(self.path, self._receipt, f"{name}/zarr.json")
        return RawRows(self.path / name, self._vouchers)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __repr__(self) -> str:
        held = f"{counted(len(self), 'image')}, up to {counted(self.n_repetitions, 'repetition')}"
        return f"<SplitEpochs {self.path.name}: {held}>"


def _is_sound(info: Mapping[str, Any]) -> bool:
    """Say whether names are texts and times, positions and rates are numbers, as whoever reads them expects."""
    names, times, positions = (info.get(key) or [] for key in ("ch_names", "times", "ch_pos"))
    try:
        return (
            all(isinstance(name, str) for name in [*names, info.get("units", "")])
            and isinstance(names, list)
            and all(isinstance(t, int | float) and math.isfinite(t) for t in [*times, info.get("sfreq", 0.0)])
            and all(place is None or len([float(x) for x in place]) == 3 for place in positions)
        )
    except (TypeError, ValueError, OverflowError):
        return False


def _read_all(folder: Path) -> np.ndarray:
    receipt = private(folder.parent / "split") / "metadata.json"
    read_vouched(folder.parent, receipt, f"{folder.name}/zarr.json")
    rows = RawRows(folder, settled(folder.parent, receipt))
    return rows.read(0, len(rows))
