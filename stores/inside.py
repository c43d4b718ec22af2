"""What a stranger's store may not do: have its writer write elsewhere."""

import os
from pathlib import Path

from stores.errors import EmbedctlError
from stores.remote import is_remote

__all__ = ["refuse_links"]


def refuse_links(store: Path) -> None:
    """Refuse to write where a folder of the store is a link: what goes into it would come to lie outside.

    A file that is a link is no danger, since files are replaced and never written into; git-annex makes such.

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
            if os.path.islink(os.path.join(here, name)):
                raise EmbedctlError(
                    f"'{os.path.join(here, name)}' is a link, and nothing is written outside of '{store}'",
                    "put the folder it leads to in its place",
                )
