"""Write the epochs of one subject: blocks of images, resumable, invisible until the subject is complete.

A subject is written below ``subject/.embedctl/unfinished`` and renamed into its place when it is done, so that
no reader, ours or another, ever meets half of one.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.codecs import encode_rows
from stores.commits import digest, discard, draft_name, json_bytes, place, put_bytes, sweep
from stores.errors import EmbedctlError, StoreMismatch
from stores.layout import array_node, group_node, private, read_ours
from stores.names import check_folder_name, subject_name
from stores.receipts import change, read_vouched, settled, vouch
from stores.roots import Root, node_bytes, read_strings, string_files
from stores.split_writer import SplitWriter, missing_blocks
from stores.tables import table_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ALL_TRIALS",
    "SubjectWriter",
    "check_recipe",
    "complete_subjects",
    "is_published",
    "publish",
    "stored_recipe",
    "unfinished",
]


ALL_TRIALS = "split/.embedctl/trials.parquet"
"""The table of every event of a subject, below its folder."""


def complete_subjects(path: Path) -> list[str]:
    """Return the complete subjects of the store at ``path``, as ``DATASET/sub-NN``."""
    folders = sorted(path.glob("*/sub-*"))
    return [
        f"{folder.parent.name}/{folder.name}"
        for folder in folders
        if folder.name[4:].isdecimal() and folder.is_dir() and folder.parent.name != "subject"
    ]


def stored_recipe(path: Path, dataset: str) -> dict[str, Any] | None:
    """Return the recipe of a dataset's complete subjects; None without any, whatever a killed writer left of it."""
    subjects = [name for name in complete_subjects(path) if name.startswith(f"{dataset}/")]
    if not subjects:
        return None
    receipt, name = private(path / "subject") / "metadata.json", dataset
    if f"{dataset}/zarr.json" in settled(path, receipt):
        read_vouched(path, receipt, f"{dataset}/zarr.json")
    else:  # a writer was killed after its first subject, before the root vouched for the dataset
        name = subjects[0]
        read_vouched(path / name, private(path / name / "split") / "metadata.json", "zarr.json")
    recipe: dict[str, Any] = read_ours(path / name, recipe=dict)["recipe"]
    return recipe


def check_recipe(path: Path, dataset: str, recipe: Mapping[str, Any]) -> None:
    """Compare a recipe with that of the complete subjects of a dataset.

    Raises
    ------
    StoreMismatch
        If it is another one.
    """
    stored = stored_recipe(path, dataset)
    if stored is None or json_bytes(stored) == json_bytes(recipe):
        return
    differing = (key for key in {*stored, *recipe} if json_bytes(stored.get(key)) != json_bytes(recipe.get(key)))
    what = f"another recipe ('{stored.get('name')}', which differs in {', '.join(sorted(differing))})"
    raise StoreMismatch(
        f"'{path}' holds {dataset} with {what}",
        "a store holds one recipe per dataset: write to another store, or remove the dataset first",
    )


def unfinished(root: Root, name: str) -> Path:
    """Return where the subject ``name`` lies until it is done: out of sight."""
    return root.private / "unfinished" / name


def publish(root: Root, without: str = "") -> None:
    """List the complete subjects in the root, where other programs look first.

    The subject or dataset ``without`` is about to go and left out.
    """
    with root.lock("list of subjects", wait=30.0):
        root.finish()
        names = [name for name in complete_subjects(root.path) if without not in (name, name.partition("/")[0])]
        datasets = {f"{dataset}/zarr.json" for name in names if (dataset := name.partition("/")[0])}
        known = settled(root.path, root.private / "metadata.json")
        vouched = {name: (root.path / name).read_bytes() for name in sorted(datasets)}
        # One that is damaged stays so: nobody vouches anew for what was not written.
        vouched = {n: data for n, data in vouched.items() if known.get(n, vouch(data))["blake2b"] == digest(data)}
        root.change({**vouched, **string_files("subject", names, 1024)}, gone=[f"{without}/zarr.json"])
        root.consolidate(without)


def is_published(root: Root) -> bool:
    """Say whether the root lists the complete subjects, and all metadata as it is."""
    return read_strings(root.path / "subject") == complete_subjects(root.path) and root.is_consolidated()


class SubjectWriter:
    """Writes one subject; a context manager that holds the subject's lock.

    What an interrupted writer left is continued if recipe, info and arrays are the same, else begun again.

    Parameters
    ----------
    root : Root
        The store's root.
    dataset, subject : str, int
        Where it goes.
    recipe : mapping
        Everything that was decided; one per dataset and store.
    modality : str
        ``eeg``, ``meg`` or ``fmri``.
    info : mapping
        What was found: ``ch_names``, ``ch_pos``, ``times`` in seconds, ``sfreq``, ``units``, counts, sources. The
        same inputs must give the same info, so it holds no date.
    arrays : mapping of str to array
        Small arrays to keep beside the epochs.
    keep : {"all", "mean"}
        Whether single repetitions are stored.
    trials : pyarrow.Table, optional
        One row per event of the recordings, those that became no repetition included.
    is_locked : bool
        Whether the caller holds the subject's lock already.

    Raises
    ------
    StoreMismatch
        If the dataset is stored with another recipe, or the subject from other inputs.
    """

    def __init__(
        self,
        root: Root,
        dataset: str,
        subject: int,
        recipe: Mapping[str, Any],
        modality: str,
        info: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray],
        keep: str,
        trials: "pa.Table | None" = None,
        is_locked: bool = False,
    ) -> None:
        if dataset == "subject":
            raise EmbedctlError("a dataset cannot be called 'subject'", "give it another name")
        if keep not in ("all", "mean"):
            raise ValueError(f"keep is {keep!r}, not all or mean")
        self._root, self._name = root, f"{check_folder_name(dataset, 'dataset')}/{subject_name(subject)}"
        self._dataset, self._keep, self._arrays, self._is_locked = dataset, keep, arrays, is_locked
        self._trials = None if trials is None else table_bytes(trials)
        self._attributes: dict[str, Any] = {
            "kind": "subject",
            "dataset": dataset,
            "subject": subject,
            "modality": modality,
            "recipe": dict(recipe),
            "info": dict(info),
            "arrays": sorted(arrays),
        }
        self._final = root.path / self._name
        self._draft = unfinished(root, self._name)
        self._held = ExitStack()
        self._check_recipe()

    def _check_recipe(self) -> None:
        check_recipe(self._root.path, self._dataset, self._attributes["recipe"])

    def __enter__(self) -> "SubjectWriter":
        with ExitStack() as held:
            lock = nullcontext() if self._is_locked else self._root.lock(self._name.replace("/", "-"))
            held.enter_context(lock)
            self._begin()
            self._held = held.pop_all()
        return self

    def _begin(self) -> None:
        self._check_recipe()
        drafts = self._root.drafts
        sweep(drafts)
        if self._final.is_dir():
            if not self._is_same(self._final):
                what = f"'{self._name}' is stored already, from other inputs"
                raise StoreMismatch(what, "remove the subject first, or write to another store")
            return
        if self._draft.is_dir() and not self._is_same(self._draft):
            discard(self._draft, drafts)
        change(private(self._draft / "split") / "metadata.json", self._draft, self._files(), drafts=drafts)

    def __exit__(self, *problem: object) -> None:
        self._held.close()

    @property
    def folder(self) -> Path:
        """Where the subject lies: out of sight until it is done."""
        return self._final if self._final.is_dir() else self._draft

    def _files(self) -> dict[str, bytes]:
        files = string_files("split", ["train", "test"], 2)
        for name, values in self._arrays.items():
            dims = tuple(f"{name}_{axis}" for axis in range(values.ndim))
            files["/".join([name, "c", *["0"] * values.ndim])] = encode_rows(values)
            files[f"{name}/zarr.json"] = node_bytes(array_node(values.shape, values.dtype.name, values.shape, dims))
        if self._trials is not None:
            files[ALL_TRIALS] = self._trials
        return {**files, "zarr.json": node_bytes(group_node({"embedctl": self._attributes}))}

    def _is_same(self, folder: Path) -> bool:
        files = self._files()
        stored = settled(folder, private(folder / "split") / "metadata.json")
        return {name: digest(data) for name, data in files.items()} == {
            name: stored[name]["blake2b"] for name in files if name in stored
        }

    def split(
        self,
        split: str,
        image_ids: Sequence[str],
        concepts: Sequence[str],
        n_repetitions: int,
        row_shape: tuple[int, ...],
        dtype: str,
        trials: "pa.Table",
    ) -> "SplitWriter":
        """Begin or resume a split.

        Parameters
        ----------
        split : {"train", "test"}
            Which.
        image_ids, concepts : sequence of str
            Of each row.
        n_repetitions : int
            The most an image has.
        row_shape : tuple of int
            Of one repetition: ``(n_chans, n_times)``, or ``(n_voxels,)`` for fMRI.
        dtype : {"float16", "float32"}
            Number type of the stored repetitions.
        trials : pyarrow.Table
            One row per trial, kept as it is.
        """
        if split not in ("train", "test"):
            raise ValueError(f"split is {split!r}, not train or test")
        if len(image_ids) != len(concepts) or len(set(image_ids)) != len(image_ids):
            raise ValueError(f"{len(image_ids)} image ids, {len(set(image_ids))} different, {len(concepts)} concepts")
        labels = self._labels(row_shape)
        return SplitWriter(
            self.folder / split,
            self._root.drafts,
            image_ids,
            concepts,
            n_repetitions,
            row_shape,
            dtype,
            trials,
            self._keep,
            labels,
            may_begin_again=not self._final.is_dir(),
        )

    def _labels(self, row_shape: tuple[int, ...]) -> dict[str, Any]:
        """Return the names of channels and times; fMRI has neither."""
        if len(row_shape) != 2:
            return {}
        info = self._attributes["info"]
        labels = {"channel": info.get("ch_names"), "time": info.get("times")}
        for n, (axis, names) in zip(row_shape, labels.items(), strict=True):
            if names is not None and len(names) != n:
                raise ValueError(f"info names {len(names)} of axis {axis}, the repetitions have {n}")
        return labels

    def done(self) -> None:
        """Mark the subject complete: from now on readers see it.

        Raises
        ------
        ValueError
            If no split was begun, or one has blocks that are not written.
        """
        if not self._final.is_dir():
            begun = [split for split in ("train", "test") if (self._draft / split).is_dir()]
            missing = {split: blocks for split in begun if (blocks := missing_blocks(self._draft / split))}
            if missing or not begun:
                raise ValueError(f"'{self._name}' has splits {begun}; blocks not written: {missing}")
        # Taken for a finished subject too: whoever died here left it finished and the lock behind.
        with self._root.lock(self._dataset, wait=30.0):
            if not self._final.is_dir():
                self._check_recipe()
                self._make_dataset()
                place(self._draft, self._final)
        publish(self._root)

    def _make_dataset(self) -> None:
        folder = self._root.path / self._dataset
        node = node_bytes(group_node({"embedctl": {"kind": "dataset", "recipe": self._attributes["recipe"]}}))
        if folder.is_dir():
            if stored_recipe(self._root.path, self._dataset) is None:  # left by a writer killed before its subject
                self._root.change({}, gone=[f"{self._dataset}/zarr.json"])
                put_bytes(folder / "zarr.json", node, self._root.drafts)
            return
        draft = self._root.drafts / draft_name(self._dataset)
        put_bytes(draft / "zarr.json", node)
        place(draft, folder)
