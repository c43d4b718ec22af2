"""Whether the embeddings are in good health, and how alike the encoders are."""

import math

import numpy as np

from embedctl.report.gather import Material
from embedctl.report.parts import Figure, Section, Table
from embedctl.report.svg import BASE, LABELS, WIDTH, Picture, labels, rows, sequential
from embedctl.stored import called
from pipelines.findings.health import Health, health, samples
from pipelines.similarity import cka_matrix
from stores.names import counted

__all__ = ["embeddings"]

_FEWEST = 8  # images


def embeddings(material: Material) -> Section:
    """Return the section; it says so where there is no store."""
    title, store = "Health of the embeddings", material.store
    if store is None:
        return Section(title, [f"There is no embedding store at '{material.request.embeddings}'."])
    images, values = samples(store)
    if not values:
        return Section(title, ["The store holds no embedding of a size that is looked at here."])
    if len(images) < _FEWEST:
        few = counted(len(images), "image has", "images have")
        return Section(title, [f"Only {few} a row in every embedding: too few to say anything."])
    told = called(store)
    everything = list(zip(told.values(), store.entries(), strict=True))
    values = {told[name]: rows for name, rows in values.items()}
    found = [health(name, entry, values[name]) for name, entry in everything if name in values]
    text = [
        f"Measured on {len(images):,} of {len(store.image_ids):,} images, spread over those that every embedding has.",
        *(f"{name} is left out: it has {e.dim:,} features." for name, e in everything if name not in values),
        *_warnings(found),
    ]
    return Section(title, text, [_ranks(found, len(images)), _likeness(values)])


def _warnings(found: list[Health]) -> list[str]:
    told = []
    for one in found:
        if one.equal_rows:
            told.append(f"{one.name}: {counted(one.equal_rows, 'row equals', 'rows equal')} another one.")
        if one.effective_rank < 2:
            told.append(f"{one.name} hardly varies: its effective rank is {one.effective_rank:.1f}.")
    return told


def _ranks(found: list[Health], n_images: int) -> Figure:
    most = 1.05 * max(1.0, *(one.effective_rank for one in found))
    picture, scale, places = rows([one.name for one in found], (0, most), "directions")
    for one, y in zip(found, places, strict=True):
        told = f"{one.name}: {one.effective_rank:.1f} of {one.dim} features"
        picture.box(LABELS, y - 5, scale(one.effective_rank) - LABELS, 10, BASE, told)
    columns = (
        ("embedding", "text"), ("features", "count"), ("images", "count"), ("without a row", "count"),
        ("norm", "number"), ("its spread", "percent"), ("effective rank", "number"), ("equal rows", "count"),
        ("constant features", "count"),
    )  # fmt: skip
    cells = [
        (*(h.name, h.dim, h.n_images, h.n_absent), *(h.norm, h.norm_spread, h.effective_rank), h.equal_rows, h.constant)
        for h in found
    ]
    title = "Over how many directions each embedding spreads"
    note = f"Effective rank: the exponential of the entropy of the variances; at most {n_images - 1} here."
    return Figure(title, Table(columns, cells), picture.svg(title), note)


def _likeness(values: dict[str, np.ndarray]) -> Figure:
    names, table = list(values), cka_matrix(list(values.values()))
    width = min(34.0, (WIDTH - LABELS - 6) / len(names))
    high = max(width, 12.0)
    picture = Picture(WIDTH, 20 + high * len(names))
    for row, (name, short) in enumerate(zip(names, labels(names, LABELS - 30), strict=True)):
        y = 18 + high * row
        picture.text(LABELS - 8, y + high / 2 + 4, f"{short} {row + 1}", "end", "", name)
        if width >= 12 or row % 5 == 4:
            picture.text(LABELS + width * (row + 0.5), 12, row + 1, "middle", "small", name)
        for column, other in enumerate(names):
            value, x = float(table[row, column]), LABELS + width * column
            if math.isnan(value):
                continue
            colour, ink = sequential(value)
            told = f"{name} and {other}: {value:.2f}"
            picture.box(x, y, width - 0.5, high - 0.5, colour, told)
            if width >= 24:
                picture.text(
                    x + width / 2,
                    y + high / 2 + 4,
                    f"{value:.2f}"[:4].removeprefix("0").replace("1.00", "1"),
                    "middle",
                    "small",
                    told,
                    ink,
                )
    columns = (("embedding", "text"), *((name, "number") for name in names))
    cells = [(n, *(None if math.isnan(v) else float(v) for v in table[i])) for i, n in enumerate(names)]
    title = "How alike the encoders are: CKA between embeddings"
    note = (
        "Debiased linear CKA: 1 for the same geometry, about 0 for unrelated ones. Columns are numbered like the rows."
    )
    return Figure(title, Table(columns, cells), picture.svg(title), note)
