"""What is said wherever scores are shown: how many configurations have seen a test set, and what is simulated."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from embedctl import render
from stores.names import counted

if TYPE_CHECKING:
    from stores.screens import Seen

__all__ = ["say_seen", "say_simulated"]


def say_seen(datasets: "Mapping[str, Seen]") -> None:
    """Say of each dataset how many configurations were scored on its test images."""
    for dataset, found in datasets.items():
        n = found.trained + found.screened
        how = ", ".join(f"{k} {what}" for k, what in ((found.trained, "trained"), (found.screened, "screened")) if k)
        render.note(
            counted(n, "configuration has", "configurations have")
            + f" been scored on the test images of {dataset} ({how}): the best of many looks better than it is"
        )


def say_simulated(subjects: Mapping[str, Sequence[int]]) -> None:
    """Say whose recordings are simulated, by dataset."""
    for dataset, who in subjects.items():
        render.note(
            f"the recordings of {dataset}, subject{'s' if len(who) > 1 else ''} {', '.join(map(str, who))}, are "
            "simulated: what is found in them says nothing about people"
        )
