"""From the names somebody typed to the embeddings of this extraction: key, weights and batch size of each.

The last bits of a row depend on the shape of the batch it went through, so the batch size is part of the key,
and a stored embedding of the same recipe lends its batch size to every later run. Imports no torch.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pipelines.encoders.key import embedding_key, versions_that_matter
from pipelines.encoders.registry import EncoderSpec, find
from pipelines.encoders.weights import Weights, resolve_weights
from pipelines.extract.request import ExtractRequest
from pipelines.extract.views import check_views
from pipelines.progress import SILENT, Progress
from stores.errors import EmbedctlError, NotHere, StoreMismatch
from stores.names import EmbeddingName

if TYPE_CHECKING:
    from stores.embedding import Entry

__all__ = [
    "DEFAULT_BATCH_SIZE",
    "NOT_FLOAT16",
    "Target",
    "choose_targets",
    "draft_target",
    "keyed",
    "resolve_names",
]

# Large enough for a CPU's matrix kernels, small enough for its caches; another size changes every key.
DEFAULT_BATCH_SIZE = 32

# In the provenance of an embedding that was asked for in float16 and holds values beyond or below it.
NOT_FLOAT16 = "float32 because float16 cannot hold its values"

_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Target:
    """One embedding this extraction is to complete.

    Parameters
    ----------
    name : EmbeddingName
        What it is, under the registry's own id.
    spec : EncoderSpec
        Its encoder.
    weights : Weights
        Found, not read.
    batch_size : int
        Rows of one forward pass.
    dtype : str
        As stored.
    key : str
        Which numbers.
    recipe : dict
        What the key hashes beside the batch size.
    note : str
        `NOT_FLOAT16`, or empty.
    stored : tuple of Entry
        What the store holds of this recipe, under any batch size.
    threads : int
        Of torch in a forward pass, as recorded; 0 where nothing is.
    device : str
        Where, as recorded: ``cpu`` or ``cuda``; empty where nothing is.
    form : str
        Of the network, as recorded: ``plain``, ``folded`` or ``winograd``; empty where nothing is.
    form_on : dict of str to str
        That of other embeddings of the same network, by their device.
    """

    name: EmbeddingName
    spec: EncoderSpec
    weights: Weights
    batch_size: int
    dtype: str
    key: str
    recipe: dict[str, Any]
    note: str = ""
    stored: tuple["Entry", ...] = ()
    threads: int = 0
    device: str = ""
    form: str = ""
    form_on: dict[str, str] = field(default_factory=dict)

    def form_at(self, device: str) -> str:
        """Return the form to compute in on a device: as recorded, of itself or of its network; empty is free."""
        return self.form or self.form_on.get(device, "")

    @property
    def group(self) -> str:
        """Its group in the store."""
        return self.name.group(self.key)

    @property
    def dim(self) -> int | None:
        """Its width as far as it is known without building the encoder."""
        return self.entry.dim if self.entry else self.spec.dim if self.is_conventional else None

    @property
    def is_conventional(self) -> bool:
        """Whether it is what the encoder's table describes, and no other layer or pooling."""
        return not self.name.layer and not self.name.pooling

    @property
    def entry(self) -> "Entry | None":
        """The stored embedding this one goes on with, if there is one."""
        return next((entry for entry in self.stored if entry.key == self.key), None)


def resolve_names(request: ExtractRequest) -> list[EmbeddingName]:
    """Return every embedding asked for, once, in the order asked, under the ids of the registry.

    Raises
    ------
    UnknownName
        If an encoder is not registered; suggests the closest.
    EmbedctlError
        If no model is named, a name is malformed, or a view is none.

    Examples
    --------
    >>> request = ExtractRequest(models=("hog", "resnet18-tv:layer1.gap", "resnet50-tv"), layers=("layer2", "output"))
    >>> [str(name) for name in resolve_names(request)][2:]
    ['resnet18-tv:layer1.gap', 'resnet50-tv:layer2', 'resnet50-tv:output']
    """
    if not request.models:
        raise EmbedctlError("no model is named", "for example --model clip-vitb32; `embedctl models` lists them")
    names: dict[EmbeddingName, None] = {}
    for model in request.models:
        asked = EmbeddingName.parse(model)
        asked = replace(asked, encoder=find(asked.encoder).id)
        for name in [asked] if asked.layer or not request.layers else _layers(asked.encoder, request.layers):
            for view in [asked.view] if asked.view or not request.views else request.views:
                names[replace(name, view=view)] = None
    for view in {name.view for name in names} - {""}:
        check_views(view)
    return list(names)


def _layers(encoder: str, layers: Sequence[str]) -> list[EmbeddingName]:
    if any(layer.startswith("depth:") for layer in layers):
        from pipelines.encoders.build import resolve_layers  # torch: only a network knows its depth

        return resolve_layers(find(encoder), layers)
    return [EmbeddingName.parse(f"{encoder}:{layer}") for layer in layers]


def choose_targets(
    request: ExtractRequest,
    entries: Sequence["Entry"],
    as_float32: Collection[EmbeddingName] = (),
    progress: Progress = SILENT,
) -> list[Target]:
    """Return what this extraction is to complete, given what the store holds.

    Parameters
    ----------
    request : ExtractRequest
        What is asked.
    entries : sequence of Entry
        What the store holds.
    as_float32 : collection of EmbeddingName
        Embeddings that float16 is known not to hold.
    progress : Progress
        Who listens while weights are fetched.

    Raises
    ------
    StoreMismatch
        If a batch size or device is asked for and the store has the embedding under another one.
    EmbedctlError
        If some of them were computed on one kind of device and some on another.
    """
    if request.dtype not in _DTYPES:
        raise EmbedctlError(f"no dtype called '{request.dtype}'", f"one of {', '.join(_DTYPES)}")
    if request.batch_size is not None and request.batch_size < 1:
        raise EmbedctlError(f"a batch of {request.batch_size} images", "--batch-size takes 1 or more")
    names = resolve_names(request)
    weights = {name.encoder: _weights(request, find(name.encoder), progress) for name in names}
    drafts = []
    for name in names:
        spec, found = find(name.encoder), weights[name.encoder]
        versions = versions_that_matter(spec, found.label, name.view)
        drafts.append(draft_target(request, name, spec, found, versions, entries, name in as_float32))
    adopted = [0 if request.overwrite else _adopted(request, draft) for draft in drafts]
    recorded = set(adopted) - {0}
    usual = request.batch_size or (recorded.pop() if len(recorded) == 1 else DEFAULT_BATCH_SIZE)
    targets = [keyed(draft, size or usual) for draft, size in zip(drafts, adopted, strict=True)]
    return (_as_what_stays if request.overwrite else _as_recorded)(request, targets, entries)


def _weights(request: ExtractRequest, spec: EncoderSpec, progress: Progress) -> Weights:
    """Find out which weights are meant; files are touched only where their digest is not in the registry."""
    published = request.weights == "published" and spec.weights
    if published and len(spec.weights) == 1 and len(spec.weights[0].sha256) == 64:
        return Weights(f"sha256:{spec.weights[0].sha256}", spec.weights[0].source)
    try:
        offline = request.offline or request.dry_run
        return resolve_weights(spec, request.weights, offline=offline, progress=progress)
    except NotHere:
        if published and request.dry_run and not request.offline:
            return Weights("sha256:unknown", "not fetched yet")  # of these, nothing can be stored
        raise


def draft_target(
    request: ExtractRequest,
    name: EmbeddingName,
    spec: EncoderSpec,
    weights: Weights,
    versions: dict[str, str],
    entries: Sequence["Entry"],
    as_float32: bool,
) -> Target:
    """Return a target without its batch size, see `keyed`: 0 stands for one that is still to choose."""

    def stored_as(dtype: str) -> tuple["Entry", ...]:
        def key(batch_size: int) -> str:
            return embedding_key(spec, name, weights.label, request.exact, batch_size, dtype, versions)[0]

        same_name = [entry for entry in entries if entry.name == name]
        return tuple(entry for entry in same_name if entry.key == key(entry.provenance.get("batch_size", 0)))

    dtype, note = request.dtype, ""
    marked = any(entry.provenance.get("note") == NOT_FLOAT16 for entry in stored_as("float32"))
    if dtype == "float16" and (as_float32 or marked):
        dtype, note = "float32", NOT_FLOAT16
    _, recipe = embedding_key(spec, name, weights.label, request.exact, 0, dtype, versions)
    return Target(name, spec, weights, 0, dtype, "", recipe, note, stored_as(dtype))


def _adopted(request: ExtractRequest, draft: Target) -> int:
    """Return the batch size the store recorded for this recipe, 0 where it has none."""
    sizes: dict[int, int] = {entry.provenance["batch_size"]: entry.n_committed for entry in draft.stored}
    if request.batch_size in sizes or not sizes:
        return request.batch_size or 0
    fullest = max(sizes, key=lambda size: (sizes[size], -size))
    if request.batch_size is not None:
        raise StoreMismatch(
            f"'{draft.name}' is stored with batch size {fullest}, not {request.batch_size}",
            f"leave --batch-size out to go on with {fullest}, or --overwrite to compute every row again",
        )
    return fullest


def _as_recorded(request: ExtractRequest, targets: Sequence[Target], entries: Sequence["Entry"]) -> list[Target]:
    """Return targets with threads, device and form of the store's rows: the last bits depend on them, too.

    What is new takes the form that the store has of the same network on the same kind of device, so that it matters
    nowhere which of its layers were asked for first, and both come out of one pass.
    """
    facts = {target.name: target.entry.provenance for target in targets if target.entry}
    devices = {fact["device"]: name for name, fact in facts.items() if "device" in fact}
    for device, name in devices.items():
        if request.device not in ("auto", device):
            raise StoreMismatch(
                f"'{name}' was computed on {device}, not {request.device}",
                f"leave --device out to go on with {device}, or --overwrite to compute every row again",
            )
    device = _only(devices)
    threads = {name: fact.get("threads", 0) for name, fact in facts.items()}
    usual = threads[next(iter(threads))] if len(set(threads.values())) == 1 else 0
    form_on: dict[tuple[str, str, bool], dict[str, str]] = {}
    for entry in _computed(entries):
        form_on.setdefault(_network(entry), {}).setdefault(entry.provenance["device"], entry.form)
    found = []
    for target in targets:
        on = form_on.get(_network(target), {})
        form = target.entry.form if target.entry else on.get(device or request.device, "")
        usually = threads.get(target.name, usual)
        found.append(replace(target, threads=usually, device=device, form=form, form_on=on))
    return found


def _as_what_stays(request: ExtractRequest, targets: Sequence[Target], entries: Sequence["Entry"]) -> list[Target]:
    """Return targets that replace what is stored, with threads, device and form of what stays of their networks."""
    replaced = {entry.group for target in targets for entry in target.stored}
    stays: dict[tuple[str, str, bool], Entry] = {}
    for entry in _computed(entries):
        if entry.group not in replaced and request.device in ("auto", entry.provenance["device"]):
            stays.setdefault(_network(entry), entry)
    beside = [stays.get(_network(target)) for target in targets]
    device = _only({entry.provenance["device"]: entry.name for entry in beside if entry is not None})
    found = []
    for target, other in zip(targets, beside, strict=True):
        threads, form = (other.provenance.get("threads", 0), other.form) if other else (0, "")
        found.append(replace(target, threads=threads, device=device, form=form))
    return found


def _computed(entries: Sequence["Entry"]) -> list["Entry"]:
    """Return what was computed here, and not imported."""
    return [entry for entry in entries if "device" in entry.provenance]


def _network(of: "Target | Entry") -> tuple[str, str, bool]:
    """Return what tells networks apart: encoder, weights and whether they see images as their library does."""
    if isinstance(of, Target):
        return of.spec.id, of.weights.label, of.recipe["exact"]
    return of.provenance["encoder"], of.provenance["weights"], of.provenance["exact"]


def _only(devices: dict[str, EmbeddingName]) -> str:
    """Return the one device of what is recorded, empty where nothing is; who was computed on each is told of two."""
    if len(devices) > 1:
        (one, first), (other, second) = list(devices.items())[:2]
        raise EmbedctlError(
            f"'{first}' was computed on {one}, and '{second}' on {other}", "extract them one after the other"
        )
    return next(iter(devices), "")


def keyed(draft: Target, batch_size: int) -> Target:
    """Return a draft with its batch size, and so its key."""
    recipe = draft.recipe
    key, _ = embedding_key(
        draft.spec, draft.name, recipe["weights"], recipe["exact"], batch_size, draft.dtype, recipe["versions"]
    )
    return replace(draft, batch_size=batch_size, key=key)
