"""Keras ``.h5`` weights into a torch network, by name and with every tensor accounted for. No TensorFlow.

Both layouts are read: the weights alone (``Model.save_weights``), and a whole model (``Model.save``), of which only
the group ``model_weights`` is: the optimizer's tensors beside it are no part of the network.

Almost every mistake of axes or order has the right shape, so strict loading cannot notice it: the references in
``tests/references/harmonization`` do.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import nn

from pipelines.encoders.harmonization_names import keras_name
from pipelines.encoders.network import refuse_misfits
from pipelines.hdf5 import not_plain
from stores.errors import EmbedctlError

__all__ = ["AXES", "Source", "keras_tensors", "load", "sources"]

Shape = tuple[int, ...]

AGAIN = "download the file again, or save the model again"


def _fc1(kernel: np.ndarray) -> np.ndarray:
    """Keras flattens VGG's last map as row, column, channel; torch as channel, row, column."""
    n_out = kernel.shape[1]
    return kernel.reshape(7, 7, -1, n_out).transpose(3, 2, 0, 1).reshape(n_out, -1)


def _relative(table: np.ndarray) -> np.ndarray:
    """Keras counts offsets from the query to the key, timm from the key to the query; and rows and columns in one."""
    side = int(table.shape[1] ** 0.5)
    return table.reshape(-1, side, side)[:, ::-1, ::-1]


AXES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda x: x,
    "transposed": lambda x: x.T,
    "conv": lambda kernel: kernel.transpose(3, 2, 0, 1),  # row, column, in, out -> out, in, row, column
    "depthwise": lambda kernel: kernel.transpose(2, 3, 0, 1),  # row, column, channel, 1 -> channel, 1, row, column
    "dense": lambda kernel: kernel.T,
    "pointwise": lambda kernel: kernel[0, 0].T,  # a 1 x 1 convolution, in torch a matrix
    "fc1": _fc1,
    "relative": _relative,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where one tensor of a torch network comes from.

    Parameters
    ----------
    names : tuple of str
        Tensors of the Keras file; several are laid one after another (query, key, value).
    shape : tuple of int
        Of each of them, in the file.
    axes : str
        The entry of `AXES` that turns each into torch's order.
    """

    names: tuple[str, ...]
    shape: Shape
    axes: str

    def tensor(self, parts: list[np.ndarray]) -> np.ndarray:
        """Return the torch tensor made of ``parts``, one array per name."""
        turned = [AXES[self.axes](part) for part in parts]
        return turned[0] if len(turned) == 1 else np.concatenate(turned)


def sources(network: str, shapes: Mapping[str, Shape]) -> dict[str, Source]:
    """Return where every tensor of a torch network comes from.

    Parameters
    ----------
    network : str
        Entry of `harmonization_names.NAMES`.
    shapes : dict of str to tuple of int
        Shape of every tensor of the torch network, by its name there.

    Examples
    --------
    >>> sources("vgg16", {"features.0.weight": (64, 3, 3, 3)})["features.0.weight"]
    Source(names=('block1_conv1/kernel',), shape=(3, 3, 3, 64), axes='conv')
    """
    return {name: _source(network, name, shapes) for name in shapes if not name.endswith("num_batches_tracked")}


def _source(network: str, name: str, shapes: Mapping[str, Shape]) -> Source:
    module, _, leaf = name.rpartition(".")
    shape = shapes[name]
    if leaf not in ("weight", "bias", "running_mean", "running_var"):  # no layer's: it has a rule of its own
        keras, axes = keras_name(network, name)
        return Source((keras,), _shape_in_file(axes, shape), axes)
    layers, axes = keras_name(network, module)
    if len(shapes[f"{module}.weight"]) == 1:
        axes, tensor = "same", _OF_A_NORM[leaf]
    elif leaf == "bias":
        axes, tensor = "same", "bias"
    else:
        axes = axes or ("dense" if len(shape) == 2 else "depthwise" if shape[1] == 1 else "conv")
        tensor = "depthwise_kernel" if axes == "depthwise" else "kernel"
    names = tuple(f"{layer}/{tensor}" for layer in layers.split("|"))
    return Source(names, _shape_in_file(axes, (shape[0] // len(names), *shape[1:])), axes)


_OF_A_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def _shape_in_file(axes: str, shape: Shape) -> Shape:
    if axes in ("conv", "depthwise"):
        first, second, *area = shape
        return (*area, second, first) if axes == "conv" else (*area, first, second)
    if axes == "relative":
        return shape[0], shape[1] * shape[2]
    return {"same": shape, "pointwise": (1, 1, *shape[::-1])}.get(axes, shape[::-1])


def keras_tensors(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the weights of a Keras file by name, in the order written, without reading them.

    Raises
    ------
    EmbedctlError
        If the file holds no Keras weights, or one name twice.
    """
    root = file["model_weights"] if "model_weights" in file else file
    if "layer_names" not in root.attrs:
        raise EmbedctlError(
            f"{Path(file.filename).name} holds no Keras weights: it has no layer_names",
            "give a file that Keras wrote with save_weights or save, in its .h5 format",
        )
    found: dict[str, h5py.Dataset] = {}
    for layer in (root[layer] for layer in map(_text, root.attrs["layer_names"]) if layer in root):
        for weight in map(_text, layer.attrs.get("weight_names", ())):
            name = weight.removesuffix(":0")
            if name in found:
                raise EmbedctlError(f"{Path(file.filename).name} holds '{name}' twice", AGAIN)
            if weight in layer:
                if why := not_plain(layer[weight], file):
                    raise EmbedctlError(f"{Path(file.filename).name}: {why}", AGAIN)
                found[name] = layer[weight]
    return found


def _text(value: bytes | str) -> str:  # h5py gives back what was written, and Keras has written both
    return value.decode() if isinstance(value, bytes) else value


def load(module: nn.Module, network: str, path: Path) -> None:
    """Load a Keras file into a torch network, every tensor of one into its place in the other.

    Raises
    ------
    EmbedctlError
        If the file cannot be read as HDF5, or if a tensor is missing, left over or of another shape: counts and the
        first few names, as the file spells them.
    """
    state = module.state_dict()
    wanted = sources(network, {name: tuple(tensor.shape) for name, tensor in state.items()})
    try:
        file = h5py.File(path, "r")
    except OSError as broken:
        raise EmbedctlError(f"{path.name} is not a whole HDF5 file", AGAIN) from broken
    with file:
        found = keras_tensors(file)
        refuse_misfits(
            {name: source.shape for source in wanted.values() for name in source.names},
            {name: dataset.shape for name, dataset in found.items()},
            path.name,
        )
        with torch.no_grad():
            for name, source in wanted.items():  # one at a time: VGG's fc1 alone is 0.4 GB
                tensor = source.tensor([found[part][()] for part in source.names])
                state[name].copy_(torch.from_numpy(np.ascontiguousarray(tensor)))
