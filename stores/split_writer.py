"""Write one split of a subject, a block of images at a time.

A block is a chunk of each of the arrays ``epochs``, ``mean``, ``valid`` and ``session``, and one receipt,
``mean/.embedctl/receipts/BLOCK.json``, that commits them together.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores.codecs import encode_rows
from stores.commits import digest, discard
from stores.errors import DamagedStore, StoreMismatch
from stores.layout import array_node, group_node, private, read_array
from stores.receipts import Vouchers, change, is_of_a_block, settled
from stores.roots import count_strings, node_bytes, string_files
from stores.tables import table_bytes

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SplitWriter", "block_receipts", "missing_blocks"]

BLOCK_BYTES = 32_000_000


def block_receipts(split: Path) -> Vouchers:
    """Return what the receipts of a split's blocks vouch for, by file below the split."""
    vouchers: Vouchers = {}
    for path in sorted((private(split / "mean") / "receipts").glob("*.json")):
        if is_of_a_block(path.name):
            vouchers |= settled(split, path)
    return vouchers


def missing_blocks(split: Path) -> list[int]:
    """Return the blocks of a split that are not committed, in order."""
    mean, n_images = read_array(split / "mean"), count_strings(split / "image")
    if mean.shape[0] != n_images:
        raise DamagedStore(f"'{split}' has {n_images:,} images, and means of {mean.shape[0]:,}")
    n_blocks = mean.n_chunks
    receipts = private(split / "mean") / "receipts"
    return [block for block in range(n_blocks) if not (receipts / f"{block:06d}.json").is_file()]


class SplitWriter:
    """Writes one split, block by block. Obtained from `SubjectWriter.split`.

    The block's repetitions, their plain mean, ``valid`` and ``session`` are committed together by one receipt.
    """

    def __init__(
        self,
        folder: Path,
        drafts: Path,
        image_ids: Sequence[str],
        concepts: Sequence[str],
        n_repetitions: int,
        row_shape: tuple[int, ...],
        dtype: str,
        trials: "pa.Table",
        keep: str,
        labels: Mapping[str, Any],
        may_begin_again: bool,
    ) -> None:
        self._folder, self._shape, self._dtype, self._keep = folder, (n_repetitions, *row_shape), dtype, keep
        self._drafts = drafts
        self.n_images = len(image_ids)
        row_bytes = int(np.prod(self._shape)) * np.dtype(dtype).itemsize
        self.block_images = max(1, min(self.n_images, BLOCK_BYTES // row_bytes))
        receipt = private(folder / "image") / "metadata.json"
        files = self._files(image_ids, concepts, trials, labels)
        stored = settled(folder, receipt)
        known = {name: stored[name]["blake2b"] for name in files if name in stored}
        if known and known != {name: digest(data) for name, data in files.items()}:
            if not may_begin_again:
                raise StoreMismatch(f"'{folder}' is stored with other images or trials", "remove the subject first")
            discard(folder, drafts)
        change(receipt, folder, files, drafts=drafts)

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
        if labels.get("channel") is not None:
            files |= string_files("channel", list(labels["channel"]), len(labels["channel"]))
        if labels.get("time") is not None:
            times = np.asarray(labels["time"], dtype=np.float64)
            files["time/c/0"] = encode_rows(times)
            files["time/zarr.json"] = node_bytes(array_node(times.shape, "float64", times.shape, ("time",)))
        files["image/.embedctl/trials.parquet"] = table_bytes(trials)
        ours = {"kind": "split", "n_repetitions": self._shape[0], "keep": self._keep, "block_images": block}
        return {**files, "zarr.json": node_bytes(group_node({"embedctl": ours}))}

    def missing(self) -> list[int]:
        """Return the blocks that are not committed, in order."""
        return missing_blocks(self._folder)

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
        mean = _plain_mean(stored, valid)
        # One repetition that is not finite makes its mean so, and there are far fewer numbers to look at.
        if not np.isfinite(mean[valid.any(axis=1)]).all():
            raise ValueError(f"block {block} has valid repetitions that are not finite as {self._dtype}")
        parts = {
            "epochs": stored,
            "mean": mean,
            "valid": valid,
            "session": np.where(valid, session, -1).astype(np.int16),
        }
        if self._keep == "mean":
            del parts["epochs"]
        files = {
            "/".join([name, "c", str(block), *["0"] * (part.ndim - 1)]): encode_rows(_filled(part, self.block_images))
            for name, part in parts.items()
        }
        receipt = private(self._folder / "mean") / "receipts" / f"{block:06d}.json"
        change(receipt, self._folder, files, drafts=self._drafts)


def _plain_mean(epochs: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return the mean over valid repetitions, ``(b, *row_shape)`` float32; NaN where there is none.

    It is taken over the numbers as they are stored, one image at a time in float64, so that whoever reads the
    repetitions finds the same mean.
    """
    mean = np.full((len(epochs), *epochs.shape[2:]), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
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
