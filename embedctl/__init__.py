"""Image embeddings to brain decoding: the command line, and three functions for notebooks.

>>> import embedctl
>>> sorted(name for name in embedctl.__all__ if name.startswith("open"))
['open_embeddings', 'open_epochs']
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "open_embeddings", "open_epochs", "read_results"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: `embedctl --help` must not wait for the notebook's libraries.
    if name in ("open_embeddings", "open_epochs", "read_results"):
        from embedctl import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'embedctl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
