"""What a stranger's store may not do: have its writer write elsewhere."""

import os
from collections.abc import Collection
from pathlib import Path

from stores.errors import EmbedctlError
from stores.remote import is_remote

__all__ = ["refuse_links"]


def refuse_links(store: Path, but: Collection[Path] = ()) -> None:
    """Refuse to write where a folder of the store is a link: what goes into it would come to lie outside.

    A file that is a link is no danger, since files are replaced and never written into; git-annex makes such.

    Parameters
    ----------
    store : Path
        The store, or the folder of runs.
    but : collection of Path
        Links that are about to be removed.

    Raises
    ------
    EmbedctlError
        Naming the first such folder.

    Examples
    --------
    >>> refuse_links(Path("nowhere"))
    """
    if is_remote(store):  # there are no links
        return
    for here, folders, _ in os.walk(store):
        for name in folders:
            if os.path.islink(os.path.join(here, name)) and Path(here, name) not in but:
                raise EmbedctlError(
                    f"'{os.path.join(here, name)}' is a link, and nothing is written outside of '{store}'",
                    "put the folder it leads to in its place",
                )
