"""The registry: one TOML table per encoder in ``cards/``. Pure data; imports no torch.

Adding an encoder is adding a table::

    [resnet50-tv]
    family = "torchvision"
    model = { name = "resnet50" }
    weights = [{ url = "https://download.pytorch.org/models/resnet50-0676ba61.pth", sha256 = "0676ba61" }]
    tap = "output"
    dim = 2048
    input = { resize = "bilinear", fit = "shortest", resize_to = 256, size = 224, norm = "imagenet" }
    licence = "BSD-3-Clause"
    fitted_on = ["ImageNet-1k"]
    reference = "https://arxiv.org/abs/1512.03385"
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from stores.errors import EmbedctlError, UnknownName, suggest
from stores.files import read_file

__all__ = ["NORMS", "EncoderSpec", "Preprocessing", "WeightsFile", "add_cards", "find", "read_cards", "registry"]

CARDS = Path(__file__).parent / "cards"

NORMS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How an image becomes the network's input.

    Parameters
    ----------
    resize : str
        Algorithm: ``bicubic`` or ``bilinear`` (as PIL does it), or one that a family brings along.
    fit : str
        ``shortest``: short side to ``resize_to``, then a centre crop. ``squash``: both sides to ``size``.
    resize_to, size : int
        Pixels of the short side before the crop, and of the square that the network sees.
    mean, std : tuple of float
        Per channel, on values in [0, 1].
    antialias : bool
        Whether shrinking averages over all source pixels.
    """

    resize: str
    fit: str
    resize_to: int
    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    antialias: bool = True

    @property
    def has_fast(self) -> bool:
        """Whether there is a faster way beside the exact one: see `pipelines.encoders.preprocessing`."""
        return self.resize in ("bicubic", "bilinear") and self.antialias


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One file of published weights: a URL, or a file of a hub repository at a revision.

    Parameters
    ----------
    url : str
        Where the file lies, unless it lies on the hub.
    hub, revision, filename : str
        Hub repository, commit (empty where none is known) and file.
    sha256 : str
        Digest of the file, or as many leading hex digits as are known; empty when unknown.
    git_blob : str
        Git's own digest of it, where that is what is known.
    bytes : int
        Size, 0 when unknown.
    """

    url: str = ""
    hub: str = ""
    revision: str = ""
    filename: str = ""
    sha256: str = ""
    git_blob: str = ""
    bytes: int = 0

    @property
    def name(self) -> str:
        """File name on this computer."""
        return self.filename.rpartition("/")[2] or self.url.rpartition("/")[2]

    @property
    def source(self) -> str:
        """Where it comes from, in one word: the URL, or ``hf://repository@revision/file``."""
        return self.url or f"hf://{self.hub}{'@' + self.revision if self.revision else ''}/{self.filename}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """Everything needed to compute an embedding again: one table of the registry.

    ``tap`` and ``pooling`` are the conventional embedding: a layer, or ``output`` for what the network returns.
    ``base`` is what the literature compared an aligned encoder with; ``matched_base`` is the same trunk, tap and
    preprocessing without the alignment, where ``match`` says whether the weights are the very ones it started from
    (``exact``) or only the architecture is (``architecture``). ``fitted_on`` names what the numbers were fitted to.
    """

    id: str
    family: str
    dim: int
    preprocessing: Preprocessing
    model: Mapping[str, Any]
    weights: tuple[WeightsFile, ...] = ()
    tap: str = "output"
    pooling: str = ""
    alias: tuple[str, ...] = ()
    aligned_by: str = ""
    base: str = ""
    matched_base: str = ""
    match: str = ""
    control: str = ""
    licence: str = ""
    fitted_on: tuple[str, ...] = ()
    reference: str = ""
    notes: str = ""

    @property
    def contaminated(self) -> bool:
        """Whether it was fitted to the THINGS concepts or to brain data: such an encoder never leads a headline.

        Of what is made of others, whether one of them was.

        Examples
        --------
        >>> find("glocal-dino-vitb16").contaminated, find("realnet-fmri").contaminated, find("dino-vitb16").contaminated
        (True, True, False)
        """
        fitted_on = [data for spec in _with_parts(self) for data in spec.fitted_on]
        return any("things" in data.lower() or "brain data" in data.lower() for data in fitted_on)

    def table(self) -> dict[str, Any]:
        """Return the whole table as plain data, for provenance and ``--json``."""
        return asdict(self) | {"contaminated": self.contaminated}


def _with_parts(spec: EncoderSpec) -> list[EncoderSpec]:
    """Return an encoder and, of a ``concat`` or ``mean``, all it is made of; names nobody knows are left out."""
    found = {spec.id: spec}
    waiting = [spec]
    while waiting:
        of = waiting.pop().model.get("of", ())
        for encoder in (re.split("[:@]", part)[0] for part in of if isinstance(part, str)):
            part = next((s for s in registry().values() if encoder in (s.id, *s.alias)), None)
            if part and part.id not in found:
                found[part.id] = part
                waiting.append(part)
    return list(found.values())


_FIELDS = {field.name for field in fields(EncoderSpec)} - {"id", "preprocessing"} | {"input"}
_REQUIRED = {"family", "dim", "input"}
_LISTS = ("alias", "fitted_on", "weights")
_FITS = {"shortest", "squash"}
_RESIZES = {"bicubic", "bilinear", "opencv", "tf-bicubic"}
_OF_A_LIBRARY = ("timm", "open_clip", "torchvision")  # their constructors read files, too, one even without care
_NAMES_A_FILE = re.compile(r"pretrained|checkpoint|weights|cache|(^|_)(path|dir|file|hf|hub|url)($|_)")
_NO_INPUT = {"resize": "none", "fit": "none", "resize_to": 0, "size": 0, "norm": "none"}


def _spec(id_: str, table: dict[str, Any], path: Path) -> EncoderSpec:
    where = f"{path.name}: [{id_}]"
    if not isinstance(table, dict):
        raise EmbedctlError(f"{path.name}: '{id_}' is no table", "one table per encoder, [id] in brackets")
    if table.get("family") in ("concat", "mean"):  # made of stored rows: no image goes in
        table = {"input": _NO_INPUT, **table}
    if unknown := sorted(set(table) - _FIELDS):
        raise EmbedctlError(f"{where} has the unknown key '{unknown[0]}'", suggest(unknown[0], _FIELDS))
    if missing := sorted(_REQUIRED - set(table)):
        raise EmbedctlError(f"{where} has no '{missing[0]}'", "every encoder states family, dim and input")
    if odd := _wrong(table):
        raise EmbedctlError(f"{where}: {odd}", "compare with a table of pipelines/encoders/cards")
    rest: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items() if key != "input"
    }
    try:
        given = dict(table["input"])
        mean, std = NORMS[given.pop("norm")]
        rest["preprocessing"] = Preprocessing(**given, mean=mean, std=std)
        rest["weights"] = tuple(WeightsFile(**file) for file in rest.get("weights", ()))
        return EncoderSpec(**{"id": id_, "model": {}, **rest})
    except (TypeError, KeyError) as wrong:
        raise EmbedctlError(
            f"{where} cannot be read: {wrong}", "compare with a table of pipelines/encoders/cards"
        ) from wrong


def _wrong(table: dict[str, Any]) -> str:
    """Say what is wrong with the values of a table; empty when nothing is."""
    for key, value in table.items():
        kind: type = int if key == "dim" else dict if key in ("input", "model") else list if key in _LISTS else str
        if not isinstance(value, kind):
            return f"{key} is {value!r}, not {'a list' if kind is list else f'of the kind {kind.__name__}'}"
    if table["family"] in _OF_A_LIBRARY and (odd := _beside_the_network(table.get("model", {}))):
        return odd
    given = table["input"]
    if given is not _NO_INPUT:
        if given.get("fit") not in _FITS or given.get("resize") not in _RESIZES:
            known = ", ".join(sorted(_FITS)), ", ".join(sorted(_RESIZES))
            return f"input fits '{given.get('fit')}' by '{given.get('resize')}'; known are {known[0]} by {known[1]}"
        if given["fit"] == "shortest" and not given.get("resize_to", 0) >= given.get("size", 0) > 0:
            return f"input resizes to {given.get('resize_to')} pixels and cuts {given.get('size')} out of them"
    return ""


def _beside_the_network(model: Mapping[str, Any]) -> str:
    """Say which argument of a library's constructor describes no network, but names what it should read."""
    name = model.get("name", "none")
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
        return f"model has the name {name!r}, which is none of a network: files belong into weights"
    for key, value in model.items():
        names_a_file = _NAMES_A_FILE.search(key) and not isinstance(value, int | float)
        # A table of sizes is one of a network; one with a name in it may have the library fetch and read something.
        more = isinstance(value, dict) and not all(isinstance(size, int | float) for size in value.values())
        if names_a_file or more or key == "weights_only":
            return f"model has '{key}', which describes no network: files belong into weights"
    return ""


def read_cards(folder: Path) -> dict[str, EncoderSpec]:
    """Read every ``*.toml`` below ``folder``, sorted by file name and then in the order written.

    Raises
    ------
    EmbedctlError
        If a file is not TOML, a table has unknown or missing keys, or an id appears twice.
    """
    specs: dict[str, EncoderSpec] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            tables = tomllib.loads(read_file(path).decode())
        except OSError as broken:
            raise EmbedctlError(
                f"{path} cannot be read: {broken.strerror}", "name a folder of *.toml files"
            ) from broken
        except (ValueError, RecursionError) as broken:
            raise EmbedctlError(
                f"{path} is not valid TOML: {broken}", "one table per encoder, [id] in brackets"
            ) from broken
        for id_, table in tables.items():
            if id_ in specs:
                raise EmbedctlError(f"{path.name} registers '{id_}' a second time", "give each encoder its own id")
            specs[id_] = _spec(id_, table, path)
    return specs


@cache
def registry() -> dict[str, EncoderSpec]:
    """Return every encoder embedctl knows, by id: its own cards, those of installed packages, and added ones.

    A package brings cards by an entry point of the group ``embedctl.cards`` that names a folder (a ``Path``).

    Raises
    ------
    EmbedctlError
        If a card cannot be read, or two folders register the same id.

    Examples
    --------
    >>> registry()["resnet50-tv"].dim
    2048
    """
    folders = [CARDS, *map(_brought, entry_points(group="embedctl.cards")), *_added]
    specs: dict[str, EncoderSpec] = {}
    for folder in folders:
        found = read_cards(folder)
        if twice := sorted(specs.keys() & found.keys()):
            raise EmbedctlError(f"'{folder}' registers '{twice[0]}', which is taken", "give each encoder its own id")
        specs |= found
    _refuse_shared_names(specs)
    return specs


def _brought(entry: EntryPoint) -> Path:
    try:
        return Path(entry.load())
    except Exception as broken:  # whatever the package does when it is imported
        package = entry.dist.name if entry.dist else entry.value
        raise EmbedctlError(
            f"the cards of the package '{package}' cannot be loaded: {' '.join(str(broken).split())[:160]}",
            f"update '{package}', or uninstall it",
        ) from broken


def _refuse_shared_names(specs: Mapping[str, EncoderSpec]) -> None:
    """Two addresses with one file name are one file in torch's cache, and without a digest nothing would tell."""
    known: dict[str, WeightsFile] = {}
    for spec in specs.values():
        for file in (file for file in spec.weights if file.url):
            other = known.setdefault(file.name, file)
            if other.url != file.url and not len(file.sha256) == len(other.sha256) == 64:
                raise EmbedctlError(
                    f"the weights of '{spec.id}' would be kept as '{file.name}', which those of {other.url} are",
                    f'give them a name of their own: filename = "{spec.id}{Path(file.name).suffix}"',
                )


_added: list[Path] = []


def add_cards(folder: Path) -> None:
    """Register the encoders of a folder of TOML files as well, as ``--cards DIR`` does.

    Raises
    ------
    EmbedctlError
        If there is no such folder, it holds no cards, or one of them cannot be used.
    """
    if not read_cards(folder):
        raise EmbedctlError(f"no cards in '{folder}'", "a folder of *.toml files, one table per encoder")
    if folder in _added:
        return
    _added.append(folder)
    registry.cache_clear()
    try:
        registry()
    except EmbedctlError:
        _added.remove(folder)
        raise


def find(id_: str) -> EncoderSpec:
    """Return one encoder by id or alias.

    Raises
    ------
    UnknownName
        If nobody registered it; the hint names the closest id.

    Examples
    --------
    >>> find("resnet50-tv").family
    'torchvision'
    """
    known = registry()
    aliases = {alias: spec for spec in known.values() for alias in spec.alias}
    if id_ in known or id_ in aliases:
        return known.get(id_) or aliases[id_]
    raise UnknownName(f"no encoder called '{id_}'", suggest(id_, [*known, *aliases], "embedctl models"))
