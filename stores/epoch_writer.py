"""Write the epochs of one subject: blocks of images, resumable, invisible until the subject is complete.

A subject is written below ``subject/.embedctl/unfinished`` and renamed into its place when it is done, so that
no reader, ours or another, ever meets half of one.
"""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.commits import cannot_write, digest, draft_name, json_bytes, place, put_bytes
from stores.errors import StoreMismatch
from stores.layout import array_node, encode_rows, group_node, private, read_node
from stores.locks import lock
from stores.receipts import Vouchers, change, read_receipt, settle
from stores.roots import Root, node_bytes, string_files
from stores.tables import table_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SplitWriter", "SubjectWriter", "block_receipts", "publish", "subject_folder"]

BLOCK_BYTES = 32_000_000


def subject_folder(subject: int) -> str:
    """Return the folder of a subject, as BIDS writes it.

    Examples
    --------
    >>> subject_folder(1), subject_folder(12)
    ('sub-01', 'sub-12')
    """
    return f"sub-{subject:02d}"


def block_receipts(split: Path) -> Vouchers:
    """Return what the receipts of a split's blocks vouch for, by file below the split."""
    vouchers: Vouchers = {}
    for path in sorted((private(split / "mean") / "receipts").glob("*.json")):
        vouchers |= settle(split, read_receipt(path))
    return vouchers


def publish(root: Root) -> None:
    """List the complete subjects in the array ``subject``, and write all metadata into the root."""
    with lock(root.private / "locks", "list of subjects", wait=30.0):
        folders = sorted(folder for folder in root.path.glob("*/sub-*") if (folder / "zarr.json").is_file())
        names = [folder.relative_to(root.path).as_posix() for folder in folders]
        datasets = {f"{dataset}/zarr.json" for name in names if (dataset := name.partition("/")[0])}
        vouched = {name: (root.path / name).read_bytes() for name in sorted(datasets)}
        root.change({**vouched, **string_files("subject", names, 1024)})
        root.consolidate()


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
    ) -> None:
        if keep not in ("all", "mean"):
            raise ValueError(f"keep is {keep!r}, not all or mean")
        self._root, self._name = root, f"{dataset}/{subject_folder(subject)}"
        self._dataset, self._keep, self._arrays = dataset, keep, arrays
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
        self._draft = root.private / "unfinished" / self._name
        self._dims: tuple[str, ...] = ()
        self._held = ExitStack()
        self._check_recipe()

    def _check_recipe(self) -> None:
        folder = self._root.path / self._dataset
        if not (folder / "zarr.json").is_file():
            return
        stored = read_node(folder)["attributes"]["embedctl"]["recipe"]
        if json_bytes(stored) != json_bytes(self._attributes["recipe"]):
            differing = sorted(
                key
                for key in {*stored, *self._attributes["recipe"]}
                if json_bytes(stored.get(key)) != json_bytes(self._attributes["recipe"].get(key))
            )
            what = f"'{self._dataset}' is stored with another recipe (differs in {', '.join(differing)})"
            raise StoreMismatch(what, "write to another store with --store, or remove the dataset first")

    def __enter__(self) -> "SubjectWriter":
        self._held.enter_context(lock(self._root.private / "locks", self._name.replace("/", "-")))
        self._check_recipe()
        self._root.finish()
        if self._final.is_dir():
            self._check_same(self._final)
        else:
            if self._draft.is_dir() and not self._is_same(self._draft):
                with cannot_write(self._draft):
                    shutil.rmtree(self._draft)
            change(private(self._draft / "split") / "metadata.json", self._draft, self._files())
        return self

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
        return {**files, "zarr.json": node_bytes(group_node({"embedctl": self._attributes}))}

    def _is_same(self, folder: Path) -> bool:
        files = self._files()
        stored = settle(folder, read_receipt(private(folder / "split") / "metadata.json"))
        return {name: digest(data) for name, data in files.items()} == {
            name: stored[name]["blake2b"] for name in files if name in stored
        }

    def _check_same(self, folder: Path) -> None:
        if not self._is_same(folder):
            what = f"'{self._name}' is stored already, from other inputs"
            raise StoreMismatch(what, "remove the subject first, or write to another store with --store")

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
        info = self._attributes["info"]
        labels = {"channel": info.get("ch_names"), "time": info.get("times")} if len(row_shape) == 2 else {}
        return SplitWriter(
            self.folder / split, image_ids, concepts, n_repetitions, row_shape, dtype, trials, self._keep, labels
        )

    def done(self) -> None:
        """Mark the subject complete: from now on readers see it.

        Raises
        ------
        ValueError
            If no split was begun, or one has blocks that are not written.
        """
        if self._final.is_dir():
            publish(self._root)
            return
        begun = [split for split in ("train", "test") if (self._draft / split).is_dir()]
        missing = {split: blocks for split in begun if (blocks := _missing(self._draft / split))}
        if missing or not begun:
            raise ValueError(f"'{self._name}' has splits {begun}; blocks not written: {missing}")
        with lock(self._root.private / "locks", self._dataset, wait=30.0):
            self._check_recipe()
            self._make_dataset()
        place(self._draft, self._final)
        publish(self._root)

    def _make_dataset(self) -> None:
        folder = self._root.path / self._dataset
        if folder.is_dir():
            return
        draft = self._root.drafts / draft_name(self._dataset)
        node = group_node({"embedctl": {"kind": "dataset", "recipe": self._attributes["recipe"]}})
        put_bytes(draft / "zarr.json", node_bytes(node))
        place(draft, folder)


class SplitWriter:
    """Writes one split, block by block. Obtained from `SubjectWriter.split`.

    The block's repetitions, their plain mean, ``valid`` and ``session`` are committed together by one receipt.
    """

    def __init__(
        self,
        folder: Path,
        image_ids: Sequence[str],
        concepts: Sequence[str],
        n_repetitions: int,
        row_shape: tuple[int, ...],
        dtype: str,
        trials: "pa.Table",
        keep: str,
        labels: Mapping[str, Any],
    ) -> None:
        self._folder, self._shape, self._dtype, self._keep = folder, (n_repetitions, *row_shape), dtype, keep
        self.n_images = len(image_ids)
        row_bytes = int(np.prod(self._shape)) * np.dtype(dtype).itemsize
        self.block_images = max(1, min(self.n_images, BLOCK_BYTES // row_bytes))
        receipt = private(folder / "image") / "metadata.json"
        files = self._files(image_ids, concepts, trials, labels)
        stored = settle(folder, read_receipt(receipt))
        known = {name: stored[name]["blake2b"] for name in files if name in stored}
        if known and known != {name: digest(data) for name, data in files.items()}:
            raise StoreMismatch(f"'{folder}' was begun with other images", "remove the subject and begin again")
        change(receipt, folder, files)

    def _files(
        self, image_ids: Sequence[str], concepts: Sequence[str], trials: "pa.Table", labels: Mapping[str, Any]
    ) -> dict[str, bytes]:
        n, block = self.n_images, self.block_images
        axes = ("channel", "time") if len(self._shape) == 3 else ("voxel",)
        row = self._shape[1:]
        arrays = {
            "epochs": array_node((n, *self._shape), self._dtype, (block, *self._shape), ("image", "repetition", *axes)),
            "mean": array_node((n, *row), "float32", (block, *row), ("image", *axes)),
            "valid": array_node((n, self._shape[0]), "bool", (block, self._shape[0]), ("image", "repetition")),
            "session": array_node((n, self._shape[0]), "int16", (block, self._shape[0]), ("image", "repetition")),
        }
        if self._keep == "mean":
            del arrays["epochs"]
        files = {f"{name}/zarr.json": node_bytes(node) for name, node in arrays.items()}
        files |= string_files("image", list(image_ids), max(1, n))
        concept = string_files("concept", list(concepts), max(1, n))
        concept["concept/zarr.json"] = node_bytes(array_node((n,), "string", (max(1, n),), ("image",)))
        files |= concept
        if labels.get("channel"):
            files |= string_files("channel", list(labels["channel"]), len(labels["channel"]))
        if labels.get("time"):
            times = np.asarray(labels["time"], dtype=np.float64)
            files["time/c/0"] = encode_rows(times)
            files["time/zarr.json"] = node_bytes(array_node(times.shape, "float64", times.shape, ("time",)))
        files["image/.embedctl/trials.parquet"] = table_bytes(trials)
        ours = {"kind": "split", "n_repetitions": self._shape[0], "keep": self._keep, "block_images": block}
        return {**files, "zarr.json": node_bytes(group_node({"embedctl": ours}))}

    def missing(self) -> list[int]:
        """Return the blocks that are not committed, in order."""
        return _missing(self._folder)

    def images(self, block: int) -> range:
        """Return the rows of a block."""
        return range(block * self.block_images, min((block + 1) * self.block_images, self.n_images))

    def write_block(self, block: int, epochs: np.ndarray, valid: np.ndarray, session: np.ndarray) -> None:
        """Commit the epochs of one block of images.

        Parameters
        ----------
        block : int
            Number of the block.
        epochs : (b, n_repetitions, *row_shape)
            Repetitions; whatever is where ``valid`` is False is stored as NaN.
        valid : (b, n_repetitions) bool
            Whether the repetition was recorded.
        session : (b, n_repetitions)
            In which session; stored as -1 where not valid.

        Raises
        ------
        ValueError
            If a shape is wrong, or a valid repetition is not finite in the stored number type.
        """
        b = len(self.images(block))
        valid = np.asarray(valid, dtype=bool)
        if epochs.shape != (b, *self._shape) or valid.shape != (b, self._shape[0]) or session.shape != valid.shape:
            raise ValueError(f"block {block} has {b} images of {self._shape}; got {epochs.shape}, {valid.shape}")
        with np.errstate(over="ignore"):
            stored = epochs.astype(self._dtype)
        stored[~valid] = np.nan
        if not np.isfinite(stored[valid]).all():
            raise ValueError(f"block {block} has valid repetitions that are not finite as {self._dtype}")
        parts = {
            "epochs": stored,
            "mean": _plain_mean(stored, valid),
            "valid": valid,
            "session": np.where(valid, session, -1).astype(np.int16),
        }
        if self._keep == "mean":
            del parts["epochs"]
        files = {
            "/".join([name, "c", str(block), *["0"] * (part.ndim - 1)]): encode_rows(_filled(part, self.block_images))
            for name, part in parts.items()
        }
        change(private(self._folder / "mean") / "receipts" / f"{block:06d}.json", self._folder, files)


def _missing(split: Path) -> list[int]:
    ours, node = read_node(split)["attributes"]["embedctl"], read_node(split / "mean")
    n_blocks = -(-node["shape"][0] // ours["block_images"])
    receipts = private(split / "mean") / "receipts"
    return [block for block in range(n_blocks) if not (receipts / f"{block:06d}.json").is_file()]


def _plain_mean(epochs: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the mean over valid repetitions, ``(b, *row_shape)`` float32; NaN where there is none.

    It is taken over the numbers as they are stored, one image at a time in float64, so that whoever reads the
    repetitions finds the same mean.
    """
    mean = np.full((len(epochs), *epochs.shape[2:]), np.nan, np.float32)
    for image in np.flatnonzero(valid.any(axis=1)):
        mean[image] = epochs[image, valid[image]].mean(axis=0, dtype=np.float64)
    return mean


def _filled(part: np.ndarray, n_rows: int) -> np.ndarray:
    """Return ``part`` with as many rows as a chunk has; the surplus is what Zarr expects there."""
    if len(part) == n_rows:
        return part
    fill: Any = {"f": np.nan, "i": -1, "b": False}[part.dtype.kind]
    whole = np.full((n_rows, *part.shape[1:]), fill, part.dtype)
    whole[: len(part)] = part
    return whole
