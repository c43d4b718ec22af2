"""An affine map over a stored embedding: how gLocal aligns a network without a forward pass.

gLocal (Muttenthaler et al., NeurIPS 2023, https://arxiv.org/abs/2306.04507) publishes, for each base
network, one file ``transform.npz`` with ``weights`` (d, d), an optional ``bias`` (d,) and the scalars
``mean`` and ``std`` of the base features over the THINGS images. A row ``x`` of the base becomes::

    y = ((x - mean) / std) @ weights + bias          all in float32

``--weights random:SEED`` draws a map instead, in this order and from one generator, `numpy.random.default_rng(SEED)`:
``weights = 0.1 * (I + N / (2 * sqrt(d)))`` with ``N`` of shape (d, d) standard normal, then ``bias = 0.01 * n`` with
``n`` of shape (d,) standard normal; ``mean`` is 0 and ``std`` is 1. (Published maps are about 0.1 times the identity.)
The rows it is applied to are those of the base under the same ``random:SEED``.
"""

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.unpack import check_members
from stores.errors import EmbedctlError
from stores.npy_header import read_header

__all__ = ["AffineMap", "random_affine", "read_affine"]

# The last bits of a matrix product depend on its shape and on a row's place in it, though not on the other rows. Rows
# therefore go through in tiles of one shape, padded with zeros, at a place that follows from their number in the store.
TILE = 64


@dataclass(frozen=True, slots=True)
class AffineMap:
    """What ``transform.npz`` holds, ready to be applied.

    Parameters
    ----------
    weights : (d, d)
        float32; multiplied from the right.
    bias : (d,)
        float32; zeros where the file has none.
    mean, std : numpy.float32
        Scalars over the whole feature matrix the map was fitted on, not one per feature.

    Examples
    --------
    >>> double = AffineMap(2 * np.eye(3, dtype=np.float32), np.ones(3, np.float32), np.float32(0.5), np.float32(0.25))
    >>> double(np.array([[0.5, 0.75, 1.0]], dtype=np.float16), rows=np.array([7])).tolist()
    [[1.0, 3.0, 5.0]]
    """

    weights: np.ndarray
    bias: np.ndarray
    mean: np.float32
    std: np.float32

    @property
    def dim(self) -> int:
        """Number of features, the same before and after the map."""
        return len(self.bias)

    def __call__(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Map rows of the base embedding.

        Parameters
        ----------
        values : (n, d)
            Rows of the base as they are stored, float16 or float32.
        rows : (n,)
            Their numbers in the store, ascending.

        Returns
        -------
        (n, d)
            float32. A row has the same bytes whatever rows it comes with.

        Raises
        ------
        ValueError
            If ``values`` has another number of features than the map.
        """
        if values.ndim != 2 or values.shape[1] != self.dim:
            raise ValueError(f"values have shape {values.shape}, the map takes (n, {self.dim})")
        mapped = np.empty(values.shape, np.float32)
        _, starts = np.unique(rows // TILE, return_index=True)
        for part in np.split(np.arange(len(rows)), starts[1:]):
            tile = np.zeros((TILE, self.dim), np.float32)
            tile[rows[part] % TILE] = (values[part].astype(np.float32) - self.mean) / self.std
            mapped[part] = (tile @ self.weights)[rows[part] % TILE] + self.bias
        return mapped


def read_affine(path: Path, dim: int) -> AffineMap:
    """Read a ``transform.npz`` in gLocal's layout.

    Parameters
    ----------
    path : Path
        The file.
    dim : int
        Number of features of the base the map belongs to.

    Raises
    ------
    EmbedctlError
        If it is not an ``.npz`` file, lacks an array, has other shapes than the base asks for, or holds numbers
        that cannot be used (not finite, or a standard deviation that is not positive).

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "transform.npz"
    >>> np.savez(path, weights=np.eye(4, dtype=np.float32), mean=0.0, std=1.0)
    >>> read_affine(path, 4).bias.tolist()
    [0.0, 0.0, 0.0, 0.0]
    >>> read_affine(path, 5)
    Traceback (most recent call last):
    ...
    stores.errors.EmbedctlError: transform.npz: 'weights' is (4, 4), this base needs (5, 5)...
    """
    arrays = _read_arrays(path)
    layout = {"weights": (dim, dim), "bias": (dim,), "mean": (), "std": ()}
    arrays.setdefault("bias", np.zeros(dim, np.float32))  # clip_ViT-L/14 is published without one
    if missing := [name for name in layout if name not in arrays]:
        raise _unusable(path, f"no array '{missing[0]}', only {', '.join(sorted(arrays))}")
    if unknown := sorted(set(arrays) - set(layout)):
        raise _unusable(path, f"array '{unknown[0]}' has no meaning in an affine map")
    for name, shape in layout.items():
        if arrays[name].shape != shape:
            raise _unusable(path, f"'{name}' is {arrays[name].shape}, this base needs {shape}")
        if arrays[name].dtype.kind != "f" or not np.isfinite(arrays[name]).all():
            raise _unusable(path, f"'{name}' holds values that are not finite numbers")
    if arrays["std"] <= 0:
        raise _unusable(path, f"'std' is {arrays['std']}, not positive")
    # Two published files carry mean and std in float64; without the cast NumPy 2 computes in float64.
    whole = {name: np.ascontiguousarray(arrays[name], np.float32) for name in ("weights", "bias")}
    return AffineMap(whole["weights"], whole["bias"], np.float32(arrays["mean"]), np.float32(arrays["std"]))


def random_affine(dim: int, seed: int) -> AffineMap:
    """Draw the map of ``--weights random:SEED``, as the module documents it.

    Examples
    --------
    >>> drawn = random_affine(512, 7)
    >>> round(float(drawn.weights.diagonal().mean()), 2), float(drawn.mean), float(drawn.std)
    (0.1, 0.0, 1.0)
    """
    rng = np.random.default_rng(seed)
    weights = 0.1 * (np.eye(dim) + rng.standard_normal((dim, dim)) / (2 * np.sqrt(dim)))
    bias = 0.01 * rng.standard_normal(dim)
    return AffineMap(weights.astype(np.float32), bias.astype(np.float32), np.float32(0), np.float32(1))


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = {}
        with zipfile.ZipFile(path) as archive:
            check_members(archive)
            for name in archive.namelist():
                with archive.open(name) as file:
                    _, dtype, n_bytes = read_header(file)
                if n_bytes > archive.getinfo(name).file_size or dtype.hasobject:
                    raise ValueError("cut off")
                with archive.open(name) as file:
                    arrays[name.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
        return arrays
    except (ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as problem:
        raise _unusable(path, "not a complete .npz file of plain arrays") from problem


def _unusable(path: Path, what: str) -> EmbedctlError:
    return EmbedctlError(f"{path.name}: {what}", "give the transform.npz that gLocal publishes for this base")
