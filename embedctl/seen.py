"""How many configurations have seen a test set, said wherever test scores are shown."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from embedctl import render

if TYPE_CHECKING:
    from stores.screens import Seen

__all__ = ["say_seen"]


def say_seen(datasets: "Mapping[str, Seen]") -> None:
    """Say of each dataset how many configurations were scored on its test images."""
    for dataset, found in datasets.items():
        n = found.trained + found.screened
        how = ", ".join(f"{k} {what}" for k, what in ((found.trained, "trained"), (found.screened, "screened")) if k)
        render.note(
            f"{n} configuration{'s have' if n > 1 else ' has'} been scored on the test images of {dataset} ({how}): "
            "the best of many looks better than it is"
        )
