"""How an embedding is written: ``ENCODER[:LAYER[.POOLING]][@VIEW]``, everywhere the same.

>>> name = EmbeddingName.parse("dinov2-vitb14:blocks.7.mean@blur-9")
>>> name.encoder, name.layer, name.pooling, name.view
('dinov2-vitb14', 'blocks.7', 'mean', 'blur-9')
>>> str(name)
'dinov2-vitb14:blocks.7.mean@blur-9'

No layer means the encoder's conventional embedding, no view the image as it is.
"""

import re
from dataclasses import dataclass

from stores.errors import EmbedctlError

__all__ = ["POOLINGS", "EmbeddingName", "check_folder_name", "counted", "split_key", "subject_name"]

POOLINGS = ("cls", "mean", "cls+mean", "tokens", "gap", "flatten")

_ENCODER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_LAYER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._]*")
_VIEW = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+~-]{0,127}")
# Windows reserves these whatever the extension, and a store is a folder that people copy.
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{i}" for i in range(1, 10)), *(f"lpt{i}" for i in range(1, 10))}


@dataclass(frozen=True, slots=True, order=True)
class EmbeddingName:
    """One array over the images: an encoder, a layer of it, a pooling, a view of the image.

    Parameters
    ----------
    encoder : str
        Registry id, or the name an import was given.
    layer : str
        Named layer; empty for the encoder's conventional embedding.
    pooling : str
        One of `POOLINGS`; empty for the layer's own convention.
    view : str
        View of the image; empty for the image as it is.
    """

    encoder: str
    layer: str = ""
    pooling: str = ""
    view: str = ""

    @classmethod
    def parse(cls, text: str) -> "EmbeddingName":
        """Read a name as people type it.

        Raises
        ------
        EmbedctlError
            If ``text`` is not ``ENCODER[:LAYER[.POOLING]][@VIEW]``.

        Examples
        --------
        >>> EmbeddingName.parse("clip-rn50")
        EmbeddingName(encoder='clip-rn50', layer='', pooling='', view='')
        >>> EmbeddingName.parse("clip-vitb32:blocks.7").pooling
        ''
        """
        rest, at, view = text.partition("@")
        encoder, colon, layer = rest.partition(":")
        pooling = ""
        head, dot, tail = layer.rpartition(".")
        if dot and tail in POOLINGS:
            layer, pooling = head, tail
        well_formed = (
            _ENCODER.fullmatch(encoder)
            and (not colon or _LAYER.fullmatch(layer))
            and (not at or _VIEW.fullmatch(view))
            and encoder.split(".")[0].lower() not in _RESERVED
        )
        if not well_formed:
            raise EmbedctlError(
                f"'{text}' is not the name of an embedding",
                "write ENCODER[:LAYER[.POOLING]][@VIEW], for example dinov2-vitb14:blocks.7.mean@blur-9",
            )
        return cls(encoder, layer, pooling, view)

    def __str__(self) -> str:
        layer = f":{self.layer}" if self.layer else ""
        pooling = f".{self.pooling}" if self.pooling else ""
        view = f"@{self.view}" if self.view else ""
        return f"{self.encoder}{layer}{pooling}{view}"

    def group(self, key: str) -> str:
        """Return the Zarr group of this embedding under ``key``: ``:`` is illegal in Windows file names.

        Examples
        --------
        >>> EmbeddingName.parse("clip-rn50:layer3.gap@grey").group("0a1b2c3d4e5f")
        'clip-rn50~layer3.gap@grey-0a1b2c3d4e5f'
        """
        group = f"{str(self).replace(':', '~')}-{key}"
        if not _GROUP.fullmatch(group):
            raise EmbedctlError(f"'{self}' is too long for a folder name", "use at most 110 characters")
        return group


def split_key(text: str) -> tuple[str, str]:
    """Split ``NAME#KEY`` into name and key; the key is empty when none is given.

    Examples
    --------
    >>> split_key("clip-rn50#0a1b2c3d4e5f")
    ('clip-rn50', '0a1b2c3d4e5f')
    """
    name, _, key = text.partition("#")
    return name, key


def check_folder_name(text: str, what: str) -> str:
    """Return ``text`` if it can be the name of a folder on every system, and of nothing above or beside it.

    Parameters
    ----------
    text : str
        What would become a folder: a dataset, a run.
    what : str
        The word for it, for the message.

    Raises
    ------
    EmbedctlError
        If it is a path, too long, reserved by Windows or has other characters than a name needs.

    Examples
    --------
    >>> check_folder_name("things-eeg2", "dataset")
    'things-eeg2'
    """
    if not _GROUP.fullmatch(text) or text.split(".")[0].lower() in _RESERVED:
        raise EmbedctlError(f"'{text}' cannot be the name of a {what}", "use letters, digits and . _ - + @ ~")
    return text


def counted(n: int, one: str, many: str = "") -> str:
    """Return how many there are of something as a person says it.

    Examples
    --------
    >>> counted(1, "run"), counted(2000, "run"), counted(1, "image is", "images are")
    ('1 run', '2,000 runs', '1 image is')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def subject_name(subject: int) -> str:
    """Return what a subject is called, in folders and in what is told: as BIDS writes it.

    Examples
    --------
    >>> subject_name(1), subject_name(12)
    ('sub-01', 'sub-12')
    """
    if subject < 0:
        raise ValueError(f"subjects are numbered from 0, not {subject}")
    return f"sub-{subject:02d}"
