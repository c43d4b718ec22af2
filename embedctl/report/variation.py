"""What else moves the accuracy: the depth of a layer, the seed of a run."""

import re
from collections import Counter
from statistics import fmean, stdev

from embedctl.html import joined
from embedctl.report.gather import Answers
from embedctl.report.parts import Figure, Section, Table
from embedctl.report.svg import (
    BASE,
    WIDTH,
    Picture,
    Scale,
    axis_left,
    chance_line,
    legend,
    rows,
    span,
)
from pipelines.train.origin import marked
from stores.errors import EmbedctlError
from stores.names import EmbeddingName

__all__ = ["variation"]


def variation(answers: Answers) -> Section:
    """Return the section of one condition; without figures where nothing was varied."""
    figures = [*_layers(answers), *_seeds(answers)]
    missing = [] if figures else ["One seed and no layers were run: train with --seed 0..4 to see how stable this is."]
    return Section("Layers and seeds", missing, figures)


def _layers(answers: Answers) -> list[Figure]:
    """Return a curve over depth for layers of an encoder whose names differ in nothing but numbers.

    Only these are known to be in the order of the network: ``avgpool`` comes before ``layer4`` in the alphabet.
    """
    whole: dict[str, str] = {}  # what the encoder's conventional embedding is called
    depths: dict[tuple[str, str], list[tuple[str, float]]] = {}
    for row in answers.ranks:
        try:
            name = EmbeddingName.parse(row.embedding.partition("#")[0])
        except EmbedctlError:  # a run with a name of another program: it has no layers here
            continue
        view = f"@{name.view}" if name.view else ""
        of = f"{name.encoder}{f', {name.pooling}' if name.pooling else ''}{view}"
        if name.layer:
            whole[marked(of, row.weights)] = marked(f"{name.encoder}{view}", row.weights)
            depths.setdefault((marked(of, row.weights), re.sub(r"\d+", "*", name.layer)), []).append(
                (name.layer, row.top1)
            )
    of_encoder = Counter(encoder for (encoder, _), curve in depths.items() if len(curve) > 1)
    curves = {
        (encoder, f"{encoder}:{kind}" if of_encoder[encoder] > 1 else encoder): sorted(
            curve, key=lambda at: [int(number) for number in re.findall(r"\d+", at[0])]
        )
        for (encoder, kind), curve in depths.items()
        if len(curve) > 1
    }
    if not curves:
        return []
    conventional = {marked(row.embedding.partition("#")[0], row.weights): row.top1 for row in answers.ranks}
    chance = 1 / answers.condition["n_way"]
    values = [chance, *(top1 for curve in curves.values() for _, top1 in curve)]
    values += [conventional[whole[encoder]] for encoder, _ in curves if whole[encoder] in conventional]
    across, up = Scale(0, max(map(len, curves.values())), 40, WIDTH - 16), Scale(*span(values), 190, 12)
    picture = Picture(WIDTH, 220)
    axis_left(picture, up, 40, WIDTH - 16, 100)
    chance_line(picture, up, chance)
    keys, ringed = [], False
    called = {label: whole[encoder] if label == encoder else label for encoder, label in curves}
    colours = answers.colours(list(called.values()))  # a curve of layers has the colour of its encoder
    for (encoder, label), curve in curves.items():
        if not (colour := colours.get(called[label], "")):
            continue
        points = [(across(place + 0.5), up(top1)) for place, (_, top1) in enumerate(curve)]
        picture.curve(points, colour)
        for (x, y), (layer, top1) in zip(points, curve, strict=True):
            picture.dot(x, y, colour, f"{encoder}:{layer}: {100 * top1:.1f} %")
        if (mean := conventional.get(whole[encoder])) is not None:
            told = f"{whole[encoder]}, the conventional embedding: {100 * mean:.1f} %"
            picture.dot(WIDTH - 16, up(mean), colour, told, 4, hollow=True)
            ringed = True
        keys.append((label, colour))
    picture.text(40, 208, "lowest number", "start", "small")
    picture.text(WIDTH - 8, 208, "highest; output", "end", "small")
    cells = [(encoder, layer, top1) for (encoder, _), curve in curves.items() for layer, top1 in curve]
    title = "Top-1 by depth of the layer, %"
    drawn = joined([picture.svg(title), legend(keys, len(curves) - len(keys))])
    note = (
        "Layers whose names differ in a number alone, by that number, at equal distances: other names do not tell "
        "which comes first. Dotted: chance."
    )
    note += " Rings: the encoder's conventional embedding." if ringed else ""
    return [Figure(title, Table((("encoder", "text"), ("layer", "text"), ("top-1", "percent")), cells), drawn, note)]


def _seeds(answers: Answers) -> list[Figure]:
    """Return how far seeds lie from their subject's mean."""
    spread: dict[str, list[tuple[int, int, float]]] = {}
    for name, cell in answers.cells.items():
        for subject, seeds in cell.runs.items():
            if len(seeds) > 1:
                mean = fmean(row["top1"] for row in seeds.values())
                spread.setdefault(answers.called(name), []).extend(
                    (subject, seed, row["top1"] - mean) for seed, row in seeds.items()
                )
    if not spread:
        return []
    reach = max(abs(change) for found in spread.values() for *_, change in found) or 0.01
    ends, told_of = (-1.1 * reach, 1.1 * reach), []
    picture, scale, places = rows(list(spread), ends, "points from the subject's mean", 100, right=50)
    picture.text(WIDTH - 4, 8, "SD", "end", "small")
    for (name, found), y in zip(spread.items(), places, strict=True):
        for subject, seed, change in found:
            told = f"{name}, subject {subject}, seed {seed}: {100 * change:+.1f} points"
            picture.dot(scale(change), y, BASE, told, 2.2)
        by_subject: dict[int, list[float]] = {}
        for subject, _, change in found:
            by_subject.setdefault(subject, []).append(change)
        deviation = fmean(stdev(changes) ** 2 for changes in by_subject.values()) ** 0.5
        picture.text(WIDTH - 4, y + 4, f"{100 * deviation:.1f}", "end", "small")
        told_of.append((name, len(by_subject), len(found), deviation))
    columns = (("embedding", "text"), ("subjects", "count"), ("runs", "count"), ("SD over seeds, points", "spread"))
    title = "How much the seed alone changes top-1"
    note = "A dot per run: its distance from the mean of its subject's seeds. SD: within subjects, in points."
    return [Figure(title, Table(columns, told_of), picture.svg(title), note)]
