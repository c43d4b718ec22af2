"""Channel names as the 10-20 system spells them, so that channels are matched by name whatever wrote the file."""

import re
from collections.abc import Sequence

__all__ = ["canonical_names"]

_AROUND = re.compile(r"^EEG\s+|[-\s](?:ref|le|avg)$", re.IGNORECASE)
_ELECTRODE = re.compile(r"(fp|af|ft|fc|tp|cp|po|f|t|c|p|o|i|n|a|m)(z|\d{1,2})", re.IGNORECASE)


def canonical_names(names: Sequence[str]) -> list[str]:
    """Return channel names without spaces, amplifier's additions and unusual capitals; others as they are.

    Names that would become the same stay as they are.

    Examples
    --------
    >>> canonical_names([" EEG Fp1-Ref", "FP2", "Afz", "OZ", "MLC11", "stim"])
    ['Fp1', 'Fp2', 'AFz', 'Oz', 'MLC11', 'stim']
    >>> canonical_names(["Oz", "OZ"])
    ['Oz', 'OZ']
    """
    plain = [name.strip() for name in names]
    found = [_canonical(name) for name in plain]
    return [new if found.count(new) == 1 else old for old, new in zip(plain, found, strict=True)]


def _canonical(name: str) -> str:
    electrode = _ELECTRODE.fullmatch(_AROUND.sub("", _AROUND.sub("", name)))
    if not electrode:
        return name
    letters = electrode[1].upper()
    return ("Fp" if letters == "FP" else letters) + electrode[2].lower()
