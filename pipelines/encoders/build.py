"""From a table of the registry to an encoder: images in, every tap out of one forward pass."""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pipelines.encoders import preprocessing
from pipelines.encoders.families import family
from pipelines.encoders.folding import Folding
from pipelines.encoders.network import Network
from pipelines.encoders.pooling import default_pooling, pool
from pipelines.encoders.registry import EncoderSpec
from pipelines.encoders.weights import Weights, resolve_weights
from pipelines.encoders.winograd import MORE_BYTES, is_tiled
from stores.errors import EmbedctlError, UnknownName, suggest
from stores.names import POOLINGS, EmbeddingName

__all__ = ["Encoder", "build", "resolve_layers"]


class Encoder:
    """A frozen image network with the taps that were asked for; made by `build`.

    Attributes
    ----------
    spec : EncoderSpec
        Its table in the registry.
    weights, weights_source : str
        ``random:SEED``, ``sha256:HEX`` or ``none``; and where they came from.
    taps : list of EmbeddingName
        What a call returns. The view is not looked at: a view is made of the image, before the network.
    dims : dict of EmbeddingName to int
        Numbers per image.
    token_shapes : dict of EmbeddingName to tuple
        (token, dim) of one image, for taps pooled as ``tokens``.
    form : str
        One of `pipelines.encoders.folding.FORMS`.
    """

    form = "plain"
    _folding: Folding | None = None

    def __init__(
        self, spec: EncoderSpec, weights: Weights, network: Network, taps: Sequence[EmbeddingName], device: str = "cpu"
    ) -> None:
        self.spec, self.weights, self.weights_source = spec, weights.label, weights.source
        self.taps, self.device = list(taps), device
        self._module = network.module.eval().requires_grad_(False).to(device)
        self._call = threading.local()  # rows of the pass that a thread is in: several may be in one at once
        self._layers = f"it has {', '.join(network.layers)}"
        self.token_shapes: dict[EmbeddingName, tuple[int, int]] = {}
        at: dict[str, list[EmbeddingName]] = {}
        for tap in self.taps:
            at.setdefault(tap.layer or spec.tap, []).append(tap)
        # All are there before one is changed.
        self._tapped = tapped = {layer: _module_of(network, layer, spec.id) for layer in at}
        for layer, wanted in at.items():
            tapped[layer].register_forward_hook(partial(self._keep, network, wanted))
        # One forward pass of an empty image tells every shape; its numbers do not matter.
        probe = self(torch.zeros(1, 3, spec.preprocessing.size, spec.preprocessing.size, device=device))
        self.dims = {tap: rows.shape[1] for tap, rows in probe.items()}

    def footprint(self) -> tuple[int, int]:
        """Return the bytes of the weights, and of one image's largest step: what goes into a module and comes out.

        Counted is the form that takes the most.
        """
        steps = [0]

        def measure(module: nn.Module, inputs: object, output: object) -> None:
            steps.append(sum(tensor.nbytes for tensor in (*_tensors(inputs), *_tensors(output))))

        hooks = [module.register_forward_hook(measure) for module in self._module.modules()]
        size = self.spec.preprocessing.size
        self(torch.zeros(1, 3, size, size, device=self.device))
        for hook in hooks:
            hook.remove()
        kept = (*self._module.parameters(), *self._module.buffers())
        besides = (module.weight.nbytes * MORE_BYTES for module in self._module.modules() if is_tiled(module))
        return sum(tensor.nbytes for tensor in kept) + sum(besides), max(steps)

    @property
    def convolves(self) -> bool:
        """Whether most of its work may be convolutions: a transformer has one, which cuts an image into patches."""
        return sum(isinstance(module, nn.Conv2d) for module in self._module.modules()) > 2

    @property
    def forms(self) -> tuple[str, ...]:
        """The forms that its network can take, the library's first."""
        return self._foldable.forms

    def take(self, form: str) -> None:
        """Bring the network into one of its forms (see `pipelines.encoders.folding`).

        Raises
        ------
        ValueError
            If it has no such form here: on a GPU there is no ``winograd``.
        """
        if form != self.form:
            if form not in self.forms:
                raise ValueError(f"'{form}' is none of the forms of '{self.spec.id}': {', '.join(self.forms)}")
            self._foldable.take(form)
            self.form = form

    @property
    def _foldable(self) -> Folding:
        self._folding = self._folding or Folding(self._module)
        return self._folding

    def keep_form(self) -> None:
        """Stay in this form for good, and let go of the weights that only others have."""
        if self._folding and self.form != "plain":
            self._folding.keep(self._tapped.values())
        else:
            self._folding = None

    def output(self, batch: Tensor) -> Tensor:
        """Return all that the network itself puts out, (n, numbers): whatever taps there are, they are not computed."""
        with torch.inference_mode():
            return torch.cat([tensor.flatten(1) for tensor in _tensors(self._module(self._laid_out(batch)))], dim=1)

    def _laid_out(self, batch: Tensor) -> Tensor:
        return batch.contiguous(memory_format=torch.contiguous_format if self.form == "plain" else torch.channels_last)

    def exact_transform(self) -> Callable[[Image.Image], Tensor]:
        """Return the library's own transform: RGB image in, (3, size, size) float32 out."""
        return preprocessing.exact_transform(self.spec.preprocessing)

    def __call__(self, batch: Tensor) -> dict[EmbeddingName, Tensor]:
        """Compute every tap of a batch in one forward pass.

        Parameters
        ----------
        batch : (n, 3, size, size) float32
            Preprocessed images, on the encoder's device.

        Returns
        -------
        dict of EmbeddingName to (n, dim) float32
            In the order of `taps`.
        """
        rows: dict[EmbeddingName, Tensor] = {}
        self._call.rows = rows
        with torch.inference_mode():
            self._module(self._laid_out(batch))
        del self._call.rows
        if never := next((tap for tap in self.taps if tap not in rows), None):
            raise EmbedctlError(f"'{never}': an image does not pass through this layer", self._layers)
        return {tap: rows[tap] for tap in self.taps}

    def _keep(
        self, network: Network, wanted: list[EmbeddingName], module: nn.Module, inputs: tuple[Any, ...], output: object
    ) -> None:
        """Pool a layer's output while it is there: the next layer may overwrite it in place."""
        rows = getattr(self._call, "rows", None)
        if rows is None:  # somebody calls the network itself
            return
        if self._folding and self.form != "plain" and (convolution := self._folding.unfolded(module)):
            output = convolution(*inputs)
        x = output[0] if isinstance(output, tuple) else output
        if not isinstance(x, Tensor):
            raise EmbedctlError(f"'{wanted[0]}': this layer puts out no array", self._layers)
        x = network.to_rows(module, x)
        has_cls = network.has_cls and network.n_prefix > 0
        for tap in wanted:
            # The convention is about tokens: where the network pools them itself, its output is a vector.
            pooling = tap.pooling or (self.spec.pooling if not tap.layer and x.ndim > 2 else "")
            pooling = pooling or default_pooling(x, has_cls, self.spec.pooling)
            try:
                rows[tap], shape = pool(x, pooling, network.n_prefix, network.has_cls)
            except EmbedctlError as problem:
                raise EmbedctlError(f"'{tap}': {problem}", problem.hint) from None
            if shape:
                self.token_shapes[tap] = shape


def build(
    spec: EncoderSpec,
    *,
    weights: str = "published",
    taps: Sequence[EmbeddingName] = (),
    device: str = "cpu",
    offline: bool = False,
) -> Encoder:
    """Build an encoder: evaluation mode, no gradients, weights loaded strictly or drawn from a seed.

    Parameters
    ----------
    spec : EncoderSpec
        A table of the registry.
    weights : str
        ``published``, ``random:SEED`` or the path of a file. Encoders that need no weights ignore it.
    taps : sequence of EmbeddingName
        Layers and poolings to return; none means the conventional embedding.
    device : str
        ``cpu``, ``cuda``, or ``meta`` for shapes without numbers.
    offline : bool
        Never fetch weights.

    Raises
    ------
    UnknownName
        If a layer does not exist; the hint lists those that do.
    NotHere
        If weights or a package are not on this computer.
    EmbedctlError
        If the weights do not fit the network, or a layer cannot be pooled as asked.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> encoder = build(find("pixels"))
    >>> {str(tap): dim for tap, dim in encoder.dims.items()}
    {'pixels': 768}
    """
    found = resolve_weights(spec, weights, offline=offline)
    network = _network(spec, found, device)
    return Encoder(spec, found, network, taps or [EmbeddingName(spec.id)], device)


def _network(spec: EncoderSpec, weights: Weights, device: str) -> Network:
    """Build the network, or say that its table cannot be built: libraries raise what they like at an odd name."""
    builder = family(spec.family).builder()
    try:
        network: Network = builder(spec, weights, device)
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as wrong:
        why = f"{type(wrong).__name__}: {' '.join(str(wrong).split())[:200]}"
        raise EmbedctlError(
            f"'{spec.id}' cannot be built as its table says: {why}",
            f"compare `embedctl models show {spec.id}` with another encoder of the family '{spec.family}'",
        ) from wrong
    return network


def resolve_layers(spec: EncoderSpec, layers: Iterable[str]) -> list[EmbeddingName]:
    """Turn what ``--layers`` was given into names, each layer once; nothing is drawn, loaded or fetched.

    Of n blocks, ``depth:F`` is the one after which a fraction F of them is done: number ``ceil(F * n)``, counted from
    one; of an ensemble, one of each of its networks. A pooling may follow: ``blocks.7.mean``, ``depth:0.5.mean``.

    Raises
    ------
    UnknownName
        If a layer does not exist; the hint lists those that do.
    EmbedctlError
        If a fraction is not in (0, 1], or the encoder has no layers to count.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> [name.layer for name in resolve_layers(find("resnet18-tv"), ["depth:0.25,0.5", "layer2"])]
    ['layer1', 'layer2']
    """
    network = _network(spec, Weights("random:0", seed=0), "meta")
    names: dict[EmbeddingName, None] = {}
    depth = False
    for text in (part.strip() for given in layers for part in given.split(",")):
        depth = text.startswith("depth:") or (depth and text[:1].isdigit())  # depth:0.25,0.5 is two depths
        for layer in _at_depth(spec.id, network, text.removeprefix("depth:")) if depth else [text]:
            name = EmbeddingName.parse(f"{spec.id}:{layer}")
            _module_of(network, name.layer, spec.id)
            names[name] = None
    return list(names)


def _at_depth(encoder: str, network: Network, text: str) -> list[str]:
    number, pooling = text, ""
    for known in POOLINGS:
        if text.endswith(f".{known}"):
            number, pooling = text.removesuffix(f".{known}"), f".{known}"
    try:
        fraction = float(number)
    except ValueError:
        fraction = -1.0
    if not 0 < fraction <= 1:
        raise EmbedctlError(f"'depth:{text}' is no depth", "a fraction above 0 and up to 1, for example depth:0.5")
    if not network.blocks:
        raise EmbedctlError(f"'{encoder}' has no layers to count", f"leave out 'depth:{text}' for it")
    trunks: dict[str, list[str]] = {}  # an ensemble's blocks are called clip_vitb16.blocks.7
    for block in network.blocks:
        trunks.setdefault(block.rpartition(".")[0], []).append(block)
    # 1e-9: 0.1 * 30 is a hair above 3 in floating point
    return [blocks[math.ceil(fraction * len(blocks) - 1e-9) - 1] + pooling for blocks in trunks.values()]


def _tensors(found: object) -> list[Tensor]:
    """Return the tensors that a module takes or gives."""
    if isinstance(found, Tensor):
        return [found]
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, (tuple, list)) else ()
    return [tensor for part in parts for tensor in _tensors(part)]


def _module_of(network: Network, layer: str, encoder: str) -> nn.Module:
    if layer == "output":
        return network.module
    try:
        return network.module.get_submodule(network.path(layer))
    except AttributeError:
        above, _, last = layer.rpartition(".")
        if above in network.layers:
            raise UnknownName(
                f"'{encoder}:{above}' has no pooling or layer '{last}'", f"poolings are {', '.join(POOLINGS)}"
            ) from None
        hint = suggest(layer, network.layers) if len(network.layers) > 40 else f"it has {', '.join(network.layers)}"
        raise UnknownName(f"'{encoder}' has no layer '{layer}'", hint) from None
