"""``embedctl doctor``: what this computer has, and every setting with who decided it."""

from dataclasses import asdict

import typer

from embedctl import config, options, render
from embedctl.settings import SETTINGS

__all__ = ["doctor"]

CONFLICT = 6
PLACES = ("embeddings", "epochs", "runs")


def doctor(json: options.Json = False) -> None:
    """Examine versions, devices, folders and known conflicts.

    It tries out what a store needs of a disk, and leaves nothing behind. Its last lines are what a bug report needs.
    It ends with code 6 when it finds a conflict that keeps encoders from running.

    \b
      embedctl doctor
    """
    from embedctl import doctor as checks
    from embedctl import traps
    from embedctl.folders import folders

    chosen = config.load()
    versions, devices = checks.versions(), checks.devices()
    places = folders({name: options.place(chosen.value(name)) for name in PLACES})
    known, conflicts = traps.traps(), traps.conflicts()
    found = [*versions, *devices, *places, *checks.caches(), *known]
    settings = [{"key": key, "value": chosen.value(key), "origin": chosen.origin(key)} for key in SETTINGS]
    report = checks.for_a_bug_report(versions, [*devices, *places, *known, *conflicts])
    if json:
        render.as_json(
            findings=[asdict(finding) for finding in found],
            conflicts=[asdict(finding) for finding in conflicts],
            settings=settings,
            for_a_bug_report=report,
        )
    else:
        render.table(("what", "found", ""), [(f.topic, f.found, f.hint) for f in found])
        render.line()
        rows = [(s["key"], _shown(s["value"]), s["origin"]) for s in settings]
        render.table(("setting", "value", "decided by"), rows)
        for line in ("", "for a bug report:", "", *report.splitlines()):
            render.line(line)
        for conflict in conflicts:
            render.note(f"conflict: {conflict.topic}: {conflict.found}")
            render.note(f"hint:     {conflict.hint}")
    raise typer.Exit(CONFLICT if conflicts else 0)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
