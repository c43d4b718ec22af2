"""The epoch store: brain recordings cut into epochs and put into the order of the images.

``<dataset>/sub-01/{train,test}``, each a Zarr group with ``epochs`` (image, repetition, channel, time), the
plain ``mean`` over valid repetitions, ``valid`` and ``session``. Only complete subjects are there to be read.
See ``docs/storage.md`` for what is on the disk.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.commits import discard
from stores.epoch_writer import (
    SubjectWriter,
    check_recipe,
    complete_subjects,
    is_published,
    publish,
    stored_recipe,
    unfinished,
)
from stores.errors import UnknownName, suggest
from stores.locks import clear_dead
from stores.names import counted, subject_name
from stores.roots import Root
from stores.split_writer import SplitWriter, block_receipts
from stores.subject_epochs import SplitEpochs, SubjectEpochs

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["EpochStore", "SplitEpochs", "SplitWriter", "SubjectEpochs", "SubjectWriter"]


class EpochStore:
    """A folder of epochs: datasets, subjects, and a training and a test split of each.

    Parameters
    ----------
    path : Path
        Its folder. Use `open`.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> store = EpochStore.open(Path(mkdtemp()) / "epochs.zarr", create=True)
    >>> store.datasets()
    []
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = Root(path, "epochs", "subject")

    @classmethod
    def open(cls, path: Path | str, *, create: bool = False) -> "EpochStore":
        """Open the store at ``path``; with ``create``, make an empty one where nothing is.

        Raises
        ------
        EmbedctlError
            If nothing is there, or something that is not an epoch store.
        StoreMismatch
            If a newer embedctl wrote it.
        CannotWrite
            If it cannot be made.
        """
        Root(Path(path), "epochs", "subject").open("embedctl preprocess", create)
        return cls(Path(path))

    def datasets(self) -> list[str]:
        """Return the datasets that have a complete subject."""
        return sorted({name.partition("/")[0] for name in complete_subjects(self.path)})

    def subjects(self, dataset: str) -> list[int]:
        """Return the complete subjects of a dataset; none where it is not stored."""
        names = [name.split("/") for name in complete_subjects(self.path)]
        return sorted(int(folder.removeprefix("sub-")) for held, folder in names if held == dataset)

    def recipe(self, dataset: str) -> dict[str, Any] | None:
        """Return the recipe all subjects of a dataset were preprocessed with; None where there are none."""
        return stored_recipe(self.path, dataset)

    def check_recipe(self, dataset: str, recipe: Mapping[str, Any]) -> None:
        """Make sure that subjects of ``recipe`` may join those of the dataset.

        Raises
        ------
        StoreMismatch
            If these have another recipe.
        """
        check_recipe(self.path, dataset, recipe)

    def lock(self, dataset: str, subject: int) -> AbstractContextManager[None]:
        """Hold the lock of a subject: for what must be found out before its `writer` can begin.

        Raises
        ------
        StoreLocked
            If a live process is writing it.
        """
        return self._root.lock(f"{dataset}-{subject_name(subject)}")

    def bytes_begun(self, dataset: str, subject: int) -> int:
        """Return the bytes of the blocks that a writer which was cut short has committed of a subject."""
        draft = unfinished(self._root, f"{dataset}/{subject_name(subject)}")
        blocks = (voucher for split in ("train", "test") for voucher in block_receipts(draft / split).values())
        return sum(voucher["bytes"] for voucher in blocks)

    def __getitem__(self, key: tuple[str, int]) -> "SubjectEpochs":
        if not (isinstance(key, tuple) and len(key) == 2):
            raise UnknownName(f"{key!r} is no dataset and subject", 'write store["things-eeg2", 1]')
        dataset, subject = key
        if dataset not in self.datasets():
            raise UnknownName(f"no dataset called '{dataset}' in '{self.path}'", suggest(dataset, self.datasets()))
        if subject not in self.subjects(dataset):
            known = ", ".join(map(str, self.subjects(dataset)))
            raise UnknownName(f"no subject {subject} of '{dataset}' in '{self.path}'", f"stored subjects: {known}")
        return SubjectEpochs(self.path / dataset / subject_name(subject), dataset, subject)

    def writer(
        self,
        dataset: str,
        subject: int,
        *,
        recipe: Mapping[str, Any],
        modality: str,
        info: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        keep: str = "all",
        trials: "pa.Table | None" = None,
        is_locked: bool = False,
    ) -> SubjectWriter:
        """Begin or resume one subject (see `SubjectWriter`); with ``is_locked``, inside its `lock`.

        Raises
        ------
        StoreMismatch
            If the dataset is stored with another recipe.
        """
        return SubjectWriter(self._root, dataset, subject, recipe, modality, info, arrays, keep, trials, is_locked)

    def remove(self, dataset: str, subject: int) -> None:
        """Drop a subject with all its epochs, and with the last one of a dataset its recipe.

        Raises
        ------
        UnknownName
            If it is not stored.
        StoreLocked
            If a live process is writing it.
        """
        path = self[dataset, subject].path
        with self.lock(dataset, subject), self._root.lock(dataset, wait=30.0):
            last = self.subjects(dataset) == [subject]
            publish(self._root, without=dataset if last else f"{dataset}/{path.name}")
            discard(self.path / dataset if last else path, self._root.drafts)

    @property
    def is_consolidated(self) -> bool:
        """Whether other programs see in the root what is there: not so where a writer was killed before its end."""
        return is_published(self._root)

    def consolidate(self) -> None:
        """List the complete subjects and write all metadata into the root, where other programs look first."""
        publish(self._root)
        clear_dead(self._root.locks)

    def __repr__(self) -> str:
        held = ", ".join(
            f"{dataset} ({counted(len(self.subjects(dataset)), 'subject')})" for dataset in self.datasets()
        )
        return f"<EpochStore {self.path}: {held or 'empty'}>"
