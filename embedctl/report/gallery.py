"""What was retrieved, as pictures: clear hits, bad misses, what is taken for what, and which concepts are found."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from embedctl.html import Markup, escaped, joined, thumbnail, thumbnail_of
from embedctl.report.gather import Answers, Material
from embedctl.report.parts import Figure, Section, Table
from embedctl.report.svg import BASE, rows, shortened
from pipelines.extract.sources import ImageSource, open_images
from pipelines.findings.hits import concept_accuracy
from pipelines.findings.retrieved import Confusion, Query, confusions, queries
from pipelines.train.join import resolve
from stores.errors import EmbedctlError

__all__ = ["gallery"]

_ENDS = 12  # concepts drawn from each end
_PIXELS, _CAPTION = 112, 260  # of a picture; as `shortened` counts, three lines below it


def gallery(answers: Answers, material: Material) -> Section:
    """Return the section of one condition, about its best embedding."""
    leader = answers.leader or answers.ranks[0]
    runs, cell = material.request.runs, answers.cells[leader.embedding]
    kept = [row for seeds in cell.runs.values() for row in seeds.values() if row["run_id"] in answers.hits]
    if not kept:
        return Section("What was retrieved", ["The runs kept no scores."])
    subject = _typical(leader.per_subject, [row["subject"] for row in kept])
    one = next(row for row in kept if row["subject"] == subject)
    hits, misses = queries(runs, one["run_id"])
    wrong = confusions(runs, kept)
    pictures = _Pictures(material, [image for run in answers.hits.values() for image in run.images])
    name = answers.called(leader.embedding)
    who = f"{name}, subject {subject}, seed {one['seed']}"
    figures = [
        _queries(f"The clearest hits: what was shown, and the five nearest images ({who})", hits, pictures),
        _queries(
            f"The misses, beginning with the worst: in which place the right image came ({who})", misses, pictures
        ),
        _confused(
            f"What is most often taken for what ({name}, {len(kept)} run{'s' if len(kept) != 1 else ''})",
            wrong,
            pictures,
        ),
        _concepts(answers, leader.embedding),
    ]
    missing = [f"There are no images of these names at '{material.request.images}'."] if pictures.none else []
    text = [
        f"The best embedding, {name}, at work. Single queries are of the subject in the middle of the "
        "ranking by accuracy; confusions and concepts are over all its runs.",
        *missing,
    ]
    return Section("What was retrieved", text, [figure for figure in figures if figure.table.rows])


def _typical(per_subject: Mapping[int, float], among: Sequence[int]) -> int:
    """Return the subject in the middle, so that the gallery is neither the best nor the worst."""
    ordered = sorted(set(among), key=lambda subject: (per_subject[subject], subject))
    return ordered[len(ordered) // 2]


class _Pictures:
    """Small pictures of test images, each found as training found it, and made once."""

    def __init__(self, material: Material, images: Sequence[str]) -> None:
        self._images: Path = material.request.images
        self._known = material.store.image_ids if material.store else []
        there = set(self._known)
        elsewhere = [image for image in dict.fromkeys(images) if image not in there]
        self._ids: dict[str, str] = {}
        try:
            self._ids = self._resolved(elsewhere)
        except EmbedctlError:  # one is not known or not clear: those that are drawn are looked for alone
            self._unclear = set(elsewhere)
        else:
            self._unclear = set()
        self._made: dict[str, Markup] = {}
        self._source: ImageSource | None = None
        folder = self._images.is_dir() and next(self._images.glob("*.tar"), None) is None
        if not folder:  # a folder is not listed for a few of its images
            with suppress(EmbedctlError, OSError):
                self._source = open_images(self._images)

    def __call__(self, image: str) -> Markup:
        if image not in self._made:
            drawn = self._drawn(image)
            self._made[image] = Markup(
                f'{drawn}<span class="name" title="{escaped(image)}">{escaped(_short(image))}</span>'
            )
        return self._made[image]

    @property
    def none(self) -> bool:
        """Whether not one picture was found."""
        return not any("<img" in made for made in self._made.values())

    def _drawn(self, image: str) -> Markup:
        if image in self._unclear:
            with suppress(EmbedctlError):
                self._ids |= self._resolved([image])
        named = self._ids.get(image, image)  # what the store does not know is looked for under its own name
        if self._source is None:
            return thumbnail(self._images, named, _PIXELS)
        try:
            return thumbnail_of(self._source.read(named), _PIXELS)
        except (OSError, KeyError, ValueError):
            return Markup("")

    def _resolved(self, images: Sequence[str]) -> dict[str, str]:
        if not self._known:
            return {}
        rows = resolve(images, self._known).tolist()
        return {image: self._known[row] for image, row in zip(images, rows, strict=True)}


def _short(image: str) -> str:
    """Return the last part of an id without its ending: what there is room for."""
    return shortened(image.rpartition("/")[2].rpartition(".")[0] or image, _CAPTION)


def _queries(title: str, found: Sequence[Query], pictures: _Pictures) -> Figure:
    drawn = []
    for query in found:
        cells = [Markup(f'<div class="shown">shown{pictures(query.image)}</div>')]
        for place, image in enumerate(query.nearest, start=1):
            kind, mark = (' class="right"', " right") if image == query.image else ("", "")
            cells.append(Markup(f"<div{kind}>{place}.{mark}{pictures(image)}</div>"))
        told = "found first" if query.rank == 1 else f"found in place {query.rank}"
        drawn.append(Markup(f'<div class="query"><p>{told}</p>{joined(cells)}</div>'))
    columns = (("shown", "text"), ("rank", "count"), *((f"{place}.", "text") for place in range(1, 6)))
    cells_of = [(q.image, q.rank, *q.nearest, *[""] * (5 - len(q.nearest))) for q in found]
    return Figure(title, Table(columns, cells_of), Markup(f'<div class="gallery">{joined(drawn)}</div>'))


def _confused(title: str, found: Sequence[Confusion], pictures: _Pictures) -> Figure:
    drawn = [
        Markup(
            f"<div><p>in {one.runs} run{'s' if one.runs > 1 else ''}</p><span>{pictures(one.image)}</span>"
            f"<span>{pictures(one.taken_for)}</span></div>"
        )
        for one in found
    ]
    columns = (("shown", "text"), ("taken for", "text"), ("runs", "count"))
    cells = [(one.image, one.taken_for, one.runs) for one in found]
    note = "Left what was shown, right the image retrieved first instead."
    return Figure(title, Table(columns, cells), Markup(f'<div class="confused">{joined(drawn)}</div>'), note)


def _concepts(answers: Answers, name: str) -> Figure:
    found = concept_accuracy(answers.cells[name].runs, answers.hits)
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    drawn = ordered if len(ordered) <= 2 * _ENDS else ordered[:_ENDS] + ordered[-_ENDS:]
    picture, scale, places = rows([concept for concept, _ in drawn], (0, 1), "found first, %", 100)
    for (concept, share), y in zip(drawn, places, strict=True):
        picture.line(scale(0), y, scale(share), y, BASE, 3)
        picture.dot(scale(share), y, BASE, f"{concept}: {100 * share:.1f} %", 3.5)
    title = f"Which concepts are found and which are not ({answers.called(name)})"
    note = "Mean over seeds and subjects."
    if len(drawn) < len(ordered):
        note += f" The {_ENDS} best and the {_ENDS} worst of {len(ordered)}."
    return Figure(title, Table((("concept", "text"), ("found first", "percent")), ordered), picture.svg(title), note)
