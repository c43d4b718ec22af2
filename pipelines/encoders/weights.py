"""Where the numbers of a network come from: published files, files of the user's, or a seed. Imports no torch."""

import hashlib
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.encoders.fetch import fetch, git_blob, here
from pipelines.encoders.registry import EncoderSpec, WeightsFile
from pipelines.nests import refuse_nests
from pipelines.progress import SILENT, Progress
from pipelines.unpack import check_members
from stores.errors import DamagedStore, EmbedctlError, NotHere

__all__ = ["Weights", "digest", "pull", "read_checkpoint", "read_tensors", "resolve_weights"]

FOLDERS = ("alignet", "dreamsim")  # families whose checkpoint may be a folder


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one encoder, on this computer.

    Parameters
    ----------
    label : str
        ``random:SEED``, ``sha256:HEX`` or ``none``: what the key hashes.
    source : str
        Where they come from, for provenance.
    files : tuple of Path
        The files in the order of the table; or the one file or folder that ``--weights`` named.
    seed : int or None
        Of random weights; None when there are files to load.
    """

    label: str
    source: str = ""
    files: tuple[Path, ...] = ()
    seed: int | None = None


def resolve_weights(
    spec: EncoderSpec, weights: str = "published", *, offline: bool = False, progress: Progress = SILENT
) -> Weights:
    """Find the weights of an encoder, fetching published ones when they are not here; nothing is loaded.

    Every file is hashed each time a process first uses it, whether it was fetched just now or years ago.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder.
    weights : str
        ``published``; ``random:SEED``; a file; or a folder, which ``models pull --to`` made or which is a checkpoint
        of several files. Encoders without weights ignore it.
    offline : bool
        Never fetch.

    Raises
    ------
    NotHere
        If published weights are not on this computer and must not, or cannot, be fetched.
    DamagedStore
        If a file does not have the digest its table states.
    EmbedctlError
        If ``weights`` is none of the above.

    Examples
    --------
    >>> from pipelines.encoders.registry import find
    >>> resolve_weights(find("resnet50-tv"), "random:7").label, resolve_weights(find("pixels")).label
    ('random:7', 'none')
    """
    if weights.startswith("random:"):
        text = weights.removeprefix("random:")
        if not (text.isascii() and text.isdecimal()) or int(text) >= 2**64:
            raise EmbedctlError(f"'{weights}' names no seed", "write random:SEED, for example random:7")
    if spec.family == "classical":
        return Weights("none", "needs no weights")
    if weights.startswith("random:"):
        return Weights(f"random:{int(text)}", f"torch.manual_seed({int(text)})", seed=int(text))
    if weights != "published":
        return _given(spec, Path(weights))
    files = tuple(here(file) or _fetched(spec, file, offline, progress) for file in _published(spec))
    return _checked(spec, files, ", ".join(map(_source, spec.weights, files)))


def pull(spec: EncoderSpec, to: Path | None = None, *, progress: Progress = SILENT) -> tuple[Path, ...]:
    """Fetch the published weights of an encoder, for a computer that will be offline.

    Parameters
    ----------
    spec : EncoderSpec
        The encoder.
    to : Path, optional
        Put the files into ``to/ID/``, where ``--weights TO`` finds them; else into the caches of torch
        (``TORCH_HOME``) and of the hub (``HF_HOME``), where every later run does.

    Returns
    -------
    tuple of Path
        The files; none for an encoder without weights.

    Raises
    ------
    NotHere
        If nobody publishes them at a fixed address, or they cannot be fetched.
    DamagedStore
        If what came does not have the digest the table states.
    """
    if spec.family == "classical":
        return ()
    folder = to / spec.id if to else None
    if to and to.exists() and not to.is_dir():
        raise EmbedctlError(f"'{to}' is a file, and weights go into a folder", "name an existing folder or a new one")
    files = tuple(here(file, folder) or fetch(file, folder, progress=progress) for file in _published(spec))
    return _checked(spec, files, "").files


def _published(spec: EncoderSpec) -> tuple[WeightsFile, ...]:
    if not spec.weights:
        raise NotHere(
            f"no address of the weights of '{spec.id}' is known",
            f"see `embedctl models show {spec.id}`, then use --weights FILE",
        )
    return spec.weights


def _fetched(spec: EncoderSpec, file: WeightsFile, offline: bool, progress: Progress) -> Path:
    hint = f"run `embedctl models pull {spec.id}` where there is internet, or try --weights random:0"
    if offline:
        raise NotHere(f"the weights of '{spec.id}' are not on this computer: {file.name}", hint)
    try:
        return fetch(file, progress=progress)
    except NotHere as problem:
        raise NotHere(problem.what, hint) from problem


def _given(spec: EncoderSpec, path: Path) -> Weights:
    """Find what ``--weights PATH`` names."""
    if (path / spec.id).is_dir():
        found = [here(file, path / spec.id) for file in spec.weights]
        if None in found:
            missing = path / spec.id / spec.weights[found.index(None)].name
            raise NotHere(f"no '{missing}'", f"run `embedctl models pull {spec.id} --to {path}`")
        return _checked(spec, tuple(file for file in found if file), str(path.absolute()))
    if not (path.is_file() or path.is_dir()):
        raise EmbedctlError(f"no weights at '{path}'", "published, random:SEED, or the path of a file or folder")
    if path.is_dir() and spec.family not in FOLDERS:
        raise NotHere(f"no '{path / spec.id}'", f"run `embedctl models pull {spec.id} --to {path}`, or give a file")
    return Weights(f"sha256:{digest([path])}", str(path.absolute()), (path,))


def _source(file: WeightsFile, path: Path) -> str:
    """Where a file came from; the hub's cache keeps it in a folder named after the commit."""
    cached = path.parent.parent.name == "snapshots"
    return replace(file, revision=path.parent.name, filename=path.name).source if file.hub and cached else file.source


def _checked(spec: EncoderSpec, files: tuple[Path, ...], source: str) -> Weights:
    for known, path in zip(spec.weights, files, strict=True):
        problem = ""
        if not (found := digest([path])).startswith(known.sha256):
            problem = f"sha256 {found[:12]}..., expected {known.sha256[:12]}..."
        elif known.git_blob and git_blob(path) != known.git_blob:
            problem = f"git blob {git_blob(path)[:12]}..., expected {known.git_blob[:12]}..."
        if problem:
            raise DamagedStore(
                f"'{path}' is not the file of '{spec.id}': {problem}",
                f"delete it and run `embedctl models pull {spec.id}`",
            )
    return Weights(f"sha256:{digest(files)}", source, files)


def digest(paths: Sequence[Path]) -> str:
    """Return the sha256 of a file; for several files, or a folder, that of the list of their names and digests.

    A folder counts whole: keep one checkpoint in it.
    """
    files = [(file, file.relative_to(path)) for path in paths if path.is_dir() for file in sorted(path.rglob("*"))]
    files += [(path, Path(path.name)) for path in paths if path.is_file()]
    digests = {name.as_posix(): _sha256(file, file.stat().st_mtime_ns) for file, name in files if file.is_file()}
    if len(paths) == 1 and paths[0].is_file():
        return digests[paths[0].name]
    return hashlib.sha256("".join(f"{sha}  {name}\n" for name, sha in sorted(digests.items())).encode()).hexdigest()


@cache
def _sha256(path: Path, mtime_ns: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, Any]:
    """Read the checkpoint of a network, as `read_checkpoint` does.

    Returns
    -------
    dict
        As the file holds it: name to tensor, or tensors nested under ``state_dict``, ``model`` and the like.

    Raises
    ------
    EmbedctlError
        If the file is truncated, a web page, needs code to be read, or holds no tensors by name.
    """
    checkpoint = read_checkpoint(path)
    if isinstance(checkpoint, dict):
        return checkpoint
    raise EmbedctlError(
        f"'{path}' holds a {type(checkpoint).__name__}, not tensors by name", "give a .safetensors or torch state dict"
    )


def read_checkpoint(path: Path) -> Any:
    """Read a file of tensors without running any code of it: safetensors, what ``torch.save`` wrote, or TorchScript.

    Raises
    ------
    EmbedctlError
        If the file is truncated, a web page, or needs code to be read.
    """
    import torch
    from safetensors.torch import load_file

    from pipelines.encoders.torchscript import is_torchscript, read_torchscript

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_members(archive)
        with open(path, "rb") as file:
            refuse_nests(file)
        if is_torchscript(path):
            return dict(read_torchscript(path))
        with warnings.catch_warnings():  # of pickles that it then refuses
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as broken:  # unpicklers, zip and safetensors readers raise whatever they meet
        with open(path, "rb") as file:
            page = file.read(512).lstrip()[:1] == b"<"
        why = " ".join(str(broken).split())[:160]
        if why.startswith("Weights only load failed"):  # and two pages on how to run it after all
            why = "it needs code to be read"
        elif why.startswith("pickle exhausted"):
            why = "it is cut short, or torch.save did not write it"
        why = "it is a web page" if page else why
        raise EmbedctlError(
            f"'{path}' cannot be read as tensors: {why}", "give a whole .safetensors or torch state dict, free of code"
        ) from broken
