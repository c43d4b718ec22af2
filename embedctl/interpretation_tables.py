"""Tables of an interpretation in the terminal: a line per embedding and subject, and per comparison of a pair."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedctl import render
from embedctl.captions import ms, windows
from pipelines.interpret.clusters import LEVEL

if TYPE_CHECKING:
    from pipelines.interpret.clusters import Cluster
    from pipelines.interpret.pairs import PairedProfile, PairTest
    from pipelines.interpret.profile import Profile

__all__ = ["show_pairs", "show_profiles"]

HALF = "half by, ms"  # later than the base


def show_profiles(profiles: "Sequence[Profile]", method: str) -> None:
    """Show what was found for each embedding and subject of one condition."""
    paper = method == "paper-gradcam"
    timed = bool(len(profiles[0].times))
    when = ("peak as drawn", "peak in truth") if paper else ("clusters above zero", "half by")
    columns = ["embedding", "subject", "top-1", "evidence"]
    columns += [*when, "strongest band"] if timed else []
    columns += [] if paper else ["strongest sensors", "most lost without"]
    rows = []
    for p in profiles:
        row: list[object] = [p.name, p.subject, render.percent(p.top1), "" if paper else f"{p.evidence:.2f} nats"]
        if timed:
            first = (
                (ms(p.peak), ms(p.corrected_peak))
                if paper
                else (windows(_spans(p.windows)), ms(p.half) if p.windows else "")
            )
            row += [*first, _strongest(p.bands, p.band_p) if p.is_found else "none"]
        if not paper:
            where = _strongest(p.groups, p.group_p) if p.groups else _strongest(p.sensors, p.sensor_p)
            row += [where if p.is_found else "none"]
            row.append(_most_lost(p.occlusion) if p.is_found else "")
        rows.append(row)
    render.table(
        columns, rows, right=("subject", "top-1", "evidence", "half by", *when) if timed else ("subject", "top-1")
    )


def show_pairs(pairs: "Sequence[PairedProfile]") -> None:
    """Show where each aligned embedding has more evidence than its base, and where less."""
    if not pairs:
        return
    render.line()
    columns = ("aligned", "base", "over", "n", "aligned has more", "has less", HALF, "bands (p corrected)", "regions")
    rows = []
    for pair in pairs:
        for test in pair.tests:
            over = f"{test.over}{', both found' if test.matched else ''}"
            more, less, bands, groups = _differs(test)
            rows.append((*pair.names, over, test.n, more, less, _later(pair, test), bands, groups))
    render.table(columns, rows, right=("n", HALF))
    for pair in pairs:
        for text in filter(None, (pair.note, *pair.notes)):
            render.note(f"{' and '.join(pair.names)}: {text}")


def _differs(test: "PairTest") -> tuple[str, ...]:
    """Say where the aligned side has more, and where less."""
    more, less = ([w for w in test.windows if w.sign == sign] for sign in (1, -1))
    parts = (
        ", ".join(
            f"{name} {100 * p.difference:+.1f} points ({p.p_holm:.2g})"
            for name, p in found.items()
            if p.p_holm <= LEVEL
        )
        for found in (test.bands, test.groups)
    )
    return (windows(_spans(more)), windows(_spans(less)), *(text or "no difference shown" for text in parts))


def _later(pair: "PairedProfile", test: "PairTest") -> str:
    """Say by how much later half of the aligned side's evidence has come, of all images."""
    alone = {f"images of subject {subject}": later for subject, later in pair.half.items()}
    later = [alone[test.over]] if test.over in alone else list(pair.half.values())
    if test.matched or not later or (test.over not in alone and test.over != "subjects"):
        return ""
    return f"{1000 * sum(later) / len(later):+.0f}"


def _strongest(shares: dict[str, float], p: dict[str, float]) -> str:
    """Name the largest share of those that are shown to be above zero, or of all where nothing was tested."""
    found = {name: value for name, value in shares.items() if p.get(name, float(bool(p))) <= LEVEL}
    if not found:
        return "none"
    name = max(found, key=found.__getitem__)
    return f"{name} {100 * found[name]:.0f} %"


def _most_lost(parts: Sequence[dict[str, Any]]) -> str:
    """Name, of each kind, the part whose absence costs most."""
    kinds: dict[str, dict[str, Any]] = {}
    for part in parts:
        if part["kind"] not in kinds or part["lost"] > kinds[part["kind"]]["lost"]:
            kinds[part["kind"]] = part
    return ", ".join(part["part"] for part in kinds.values() if part["lost"] > 0)


def _spans(found: "Sequence[Cluster]") -> list[tuple[float, float]]:
    return [(one.first, one.last) for one in found]
