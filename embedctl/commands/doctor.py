"""``embedctl doctor``: what this computer has, and every setting with who decided it."""

from dataclasses import asdict
from itertools import chain

import typer

from embedctl import config, options, render
from embedctl.settings import SETTINGS

__all__ = ["doctor"]

CONFLICT = 6


def doctor(json: options.Json = False) -> None:
    """Examine versions, devices, known conflicts and settings.

    It changes nothing. It ends with code 6 when it finds a conflict that keeps encoders from running.

    \b
      embedctl doctor
    """
    from embedctl import doctor as checks

    chosen = config.load()
    found = list(chain(checks.versions(), checks.devices(), checks.disk(), checks.caches()))
    conflicts = checks.conflicts()
    settings = [{"key": key, "value": chosen.value(key), "origin": chosen.origin(key)} for key in SETTINGS]
    if json:
        render.as_json(
            findings=[asdict(finding) for finding in found],
            conflicts=[asdict(finding) for finding in conflicts],
            settings=settings,
        )
    else:
        render.table(("what", "found", ""), [(f.topic, f.found, f.hint) for f in found])
        render.line()
        rows = [(s["key"], _shown(s["value"]), s["origin"]) for s in settings]
        render.table(("setting", "value", "decided by"), rows)
        for conflict in conflicts:
            render.note(f"conflict: {conflict.topic}: {conflict.found}")
            render.note(f"hint:     {conflict.hint}")
    raise typer.Exit(CONFLICT if conflicts else 0)


def _shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
