"""Which encoders have nobody to be compared with, and who that would be."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipelines.encoders.registry import registry
from pipelines.train.cells import Cell, conditions
from pipelines.train.compare import base_name
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Unpaired", "unpaired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpaired:
    """An embedding that was run, and whose partner was not, under the same condition.

    Parameters
    ----------
    condition : dict
        Under which it was run.
    embedding, missing : str
        What was run, and what was not.
    lacks : str
        What is missing: a ``base``, or the ``aligned`` encoder.
    run_id : str
        One of its runs.
    subjects, seeds : tuple of int
        Whom and what it was run with.
    """

    condition: dict[str, Any]
    embedding: str
    missing: str
    lacks: str
    run_id: str
    subjects: tuple[int, ...]
    seeds: tuple[int, ...]


def unpaired(results: "pa.Table", pairing: str = "matched_base") -> list[Unpaired]:
    """Return aligned encoders whose base was not run, and bases where no aligned encoder was; random weights apart.

    Parameters
    ----------
    results : Table
        The results, one row per run.
    pairing : str
        ``matched_base`` or ``paper``.
    """
    column, found = "base" if pairing == "paper" else "matched_base", list[Unpaired]()
    for condition, cells in conditions(results):
        published = [cell for cell in cells if not cell.first["weights"].startswith("random:")]
        there = {cell.first["embedding"] for cell in published}
        aligned = [cell for cell in published if cell.first["aligned_by"] and cell.first[column]]
        for cell in aligned:
            if (base := base_name(cell.first, column)) not in there:
                found.append(_of(condition, cell, base, "base"))
        for cell in published if not aligned else ():
            found += [_of(condition, cell, name, "aligned") for name in _aligned_from(cell, column)]
    return found


def _aligned_from(cell: Cell, column: str) -> list[str]:
    """Return what the registry has that was aligned from an encoder, at the same layer and view."""
    try:
        name = EmbeddingName.parse(cell.first["embedding"])
    except EmbedctlError:  # several in one
        return []
    from_it = [spec.id for spec in registry().values() if spec.aligned_by and getattr(spec, column) == name.encoder]
    return [str(replace(name, encoder=encoder)) for encoder in from_it]


def _of(condition: dict[str, Any], cell: Cell, missing: str, lacks: str) -> Unpaired:
    return Unpaired(
        condition=condition,
        embedding=cell.label,
        missing=missing,
        lacks=lacks,
        run_id=cell.first["run_id"],
        subjects=tuple(cell.runs),
        seeds=tuple(sorted({seed for seeds in cell.runs.values() for seed in seeds})),
    )
