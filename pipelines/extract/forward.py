"""The networks of an extraction: images of one batch in, rows of every embedding out."""

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook

from pipelines.encoders.build import Encoder, build
from pipelines.encoders.preprocessing import fast_transform, normalise
from pipelines.encoders.registry import Preprocessing
from pipelines.encoders.weights import resolve_weights
from pipelines.extract.compute import NetworkFacts
from pipelines.extract.forms import settle_form
from pipelines.extract.loading import LoadedImage, Transform
from pipelines.extract.request import ExtractRequest
from pipelines.extract.targets import Target
from pipelines.progress import SILENT, Progress
from stores.errors import EmbedctlError, NotHere
from stores.names import EmbeddingName

__all__ = ["Networks", "build_networks", "choose_device"]


THREADS = 1
"""Of torch in a forward pass, where a store says nothing: cores work at batches of their own, and never wait for each
other, and a sum has the same last bits whatever the number of cores."""


class Seen(NamedTuple):
    """What a network sees of an image: a view of it, preprocessed."""

    view: str
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Networks:
    """Encoders grouped by what they see: each group shares one preprocessed tensor.

    Attributes
    ----------
    names : tuple of EmbeddingName
        What they can compute.
    groups : list of (Seen, list of Encoder)
        Encoders that see the same pixels; one that is to look at several views is in several groups.
    exact : bool
        Whether the tensors come from the encoders' own libraries, else from uint8 kernels.
    device : str
        Where the networks are.
    threads : dict of EmbeddingName to int
        Of torch in a forward pass: how a sum is divided among them decides its last bits.
    forms : dict of EmbeddingName to str
        Of the network that gives it.
    """

    names: tuple[EmbeddingName, ...]
    groups: list[tuple[Seen, list[Encoder]]]
    exact: bool
    device: str
    threads: dict[EmbeddingName, int]
    forms: dict[EmbeddingName, str]

    def n_lanes(self, n_cores: int) -> int:
        """Return how many batches are to go through the networks at once."""
        return 1 if self.device != "cpu" else max(1, n_cores // max(self.threads.values()))

    def gpu_bytes(self) -> int:
        """Return the most that was taken of the memory of a GPU."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else 0

    @contextmanager
    def own_threads(self) -> Iterator[Callable[[], None]]:
        """Give what a thread of ours calls first; afterwards new threads are as they were before."""
        n_threads = torch.get_num_threads()
        try:
            yield _one_thread
        finally:
            torch.set_num_threads(n_threads)

    @contextmanager
    def until(self, over: Event) -> Iterator[None]:
        """Let every pass that is under way end at its next layer once ``over`` is set: nobody waits for its rows."""

        def go_on(module: torch.nn.Module, inputs: object) -> None:
            if over.is_set():
                raise CancelledError

        hook = register_module_forward_pre_hook(go_on)
        try:
            yield
        finally:
            hook.remove()

    @property
    def _encoders(self) -> dict[EmbeddingName, Encoder]:
        """What gives each embedding: of one encoder there may be a network in either form."""
        built = {(encoder.spec.id, encoder.form): encoder for _, encoders in self.groups for encoder in encoders}
        return {name: built[name.encoder, self.forms[name]] for name in self.names}

    @property
    def facts(self) -> NetworkFacts:
        """What they say about themselves."""
        encoders = self._encoders
        shapes = {name: encoder.token_shapes.get(_tap(name)) for name, encoder in encoders.items()}
        return NetworkFacts(
            widths={name: encoder.dims[_tap(name)] for name, encoder in encoders.items()},
            token_shapes={name: shape for name, shape in shapes.items() if shape},
            weights_sources={encoder.spec.id: encoder.weights_source for encoder in encoders.values()},
            device=self.device,
            threads=self.threads,
            forms=self.forms,
        )

    def transforms(self, names: Collection[EmbeddingName]) -> dict[int, tuple[str, Transform]]:
        """Return what threads do with a decoded image for some embeddings, by the number of the group of encoders."""
        return {
            number: (seen.view, self._transform(seen.preprocessing, encoders[0]))
            for number, (seen, encoders) in enumerate(self.groups)
            if any(self._wanted(encoder, seen.view, names) for encoder in encoders)
        }

    def _wanted(
        self, encoder: Encoder, view: str, names: Collection[EmbeddingName]
    ) -> dict[EmbeddingName, EmbeddingName]:
        """Return which of ``names`` an encoder gives when it looks at a view, by its taps."""
        mine = (name for name in names if name.encoder == encoder.spec.id and self.forms[name] == encoder.form)
        return {_tap(name): name for name in mine if name.view == view}

    def _transform(self, preprocessing: Preprocessing, encoder: Encoder) -> Transform:
        if self.exact or not preprocessing.has_fast:
            library = encoder.exact_transform()
            return lambda decoded: library(decoded.image)
        fast = fast_transform(preprocessing)
        return lambda decoded: fast(decoded.rgb)

    def __call__(
        self, images: Sequence[LoadedImage], places: np.ndarray, batch_size: int, names: Collection[EmbeddingName]
    ) -> dict[EmbeddingName, np.ndarray]:
        """Compute one batch.

        Parameters
        ----------
        images : sequence of LoadedImage
            Good images, n of them.
        places : (n,) int
            Their places in the batch; the others stay empty.
        batch_size : int
            Rows of the forward pass, always all of them: the last bits depend on it.
        names : collection of EmbeddingName
            Embeddings to compute; encoders that give none of them do not run.

        Returns
        -------
        dict of EmbeddingName to (n, dim) float32
        """
        rows: dict[EmbeddingName, np.ndarray] = {}
        for number, (seen, encoders) in enumerate(self.groups):
            needed = [(encoder, wanted) for encoder in encoders if (wanted := self._wanted(encoder, seen.view, names))]
            if not needed:
                continue
            batch = _stack([image.tensors[number] for image in images], places, batch_size).to(self.device)
            if batch.dtype == torch.uint8:
                batch = normalise(batch, seen.preprocessing)
            for encoder, wanted in needed:
                for n_threads in {self.threads[name] for name in wanted.values()}:
                    with _threads(n_threads):
                        out = encoder(batch)
                    for tap, name in wanted.items():
                        if self.threads[name] == n_threads:
                            rows[name] = out[tap][torch.from_numpy(places).to(batch.device)].cpu().numpy()
        return rows


def _tap(name: EmbeddingName) -> EmbeddingName:
    """Return what a network is asked for: the view is made before it."""
    return replace(name, view="")


@contextmanager
def _threads(n_threads: int) -> Iterator[None]:
    """Let torch compute with so many threads, whatever the machine has or its user set."""
    before = torch.get_num_threads()
    if n_threads == before:
        yield
        return
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _one_thread() -> None:
    """Keep torch to one core in the calling thread: there are as many such threads as cores."""
    torch.get_num_threads()  # makes torch set up this thread now; later it would undo what follows
    torch.set_num_threads(1)


def _stack(tensors: Sequence[Tensor], places: np.ndarray, batch_size: int) -> Tensor:
    shape, dtype = (batch_size, *tensors[0].shape), tensors[0].dtype
    layout = torch.channels_last if dtype == torch.uint8 else torch.contiguous_format  # as the tensors have it
    batch = torch.empty(shape, dtype=dtype, memory_format=layout).zero_()
    for place, tensor in zip(places.tolist(), tensors, strict=True):
        batch[place] = tensor
    return batch


def _check_width(encoder: Encoder) -> None:
    """Refuse a table that is wrong about its encoder: its tap, its pooling or its dim."""
    spec = encoder.spec
    width = encoder.dims.get(EmbeddingName(spec.id), spec.dim)
    if width != spec.dim:
        raise EmbedctlError(
            f"'{spec.id}' gives {width} numbers per image, and its table says dim = {spec.dim}",
            "correct dim, or the layer and pooling that the table names",
        )


def choose_device(text: str) -> str:
    """Return ``cpu`` or ``cuda``; ``auto`` is the latter where there is one.

    Raises
    ------
    NotHere
        If ``cuda`` is asked for and torch finds none.
    """
    if text not in ("auto", "cpu", "cuda"):
        raise EmbedctlError(f"no device called '{text}'", "auto, cpu or cuda")
    if text == "cuda" and not torch.cuda.is_available():
        hint = "--device cpu, or install a torch build for CUDA; rows that were begun on one need one to go on"
        raise NotHere("torch finds no CUDA device", hint)
    return "cuda" if text != "cpu" and torch.cuda.is_available() else "cpu"


def build_networks(request: ExtractRequest, targets: Sequence[Target], progress: Progress = SILENT) -> Networks:
    """Build every encoder of ``targets`` once, with all its layers and poolings as taps, whatever the number of views.

    Raises
    ------
    EmbedctlError
        If the weights are not those the keys were made of: a file changed in between. If an encoder is not as wide as
        its table says.
    """
    gc.collect()  # networks refer to themselves: without it those of the round before may stay beside these
    device = choose_device(targets[0].device or request.device)
    if device == "cuda":
        # Rows are promised in float32: TF32 keeps ten bits of it, and benchmarking picks another kernel every time.
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
    groups: dict[Seen, list[Encoder]] = {}
    forms: dict[EmbeddingName, str] = {}
    for (_, recorded), mine in _by_network(targets, device).items():
        spec, weights = mine[0].spec, mine[0].weights
        names = [target.name for target in mine]
        of = "no weights needed" if weights.label == "none" else f"{request.weights} weights"
        progress.say(f"building {spec.id} ({of}) on {device}")
        resolve_weights(spec, request.weights, offline=request.offline, progress=progress)  # fetches, and shows it
        taps = list(dict.fromkeys(map(_tap, names)))
        encoder = build(spec, weights=request.weights, taps=taps, device=device, offline=request.offline)
        _check_width(encoder)
        if encoder.weights != weights.label:
            raise EmbedctlError(
                f"the weights of '{spec.id}' are {encoder.weights[:19]}, not {weights.label[:19]}",
                "the file changed while this command began; run it again",
            )
        batch_size = min(target.batch_size for target in mine)
        settle_form(encoder, recorded, mine[0].recipe["exact"], batch_size, progress)
        forms |= dict.fromkeys(names, encoder.form)
        for view in dict.fromkeys(name.view for name in names):
            groups.setdefault(Seen(view, spec.preprocessing), []).append(encoder)
    threads = {target.name: target.threads or THREADS for target in targets}
    return Networks(tuple(threads), list(groups.items()), request.exact, device, threads, forms)


def _by_network(targets: Sequence[Target], device: str) -> dict[tuple[str, str], list[Target]]:
    """Return the targets of each network: an encoder, in the form that a store recorded."""
    found: dict[tuple[str, str], list[Target]] = {}
    for target in targets:
        found.setdefault((target.spec.id, target.form_at(device)), []).append(target)
    return found
