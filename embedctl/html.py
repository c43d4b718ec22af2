"""Small pieces of HTML for notebooks. Everything that comes from a file or a name is escaped here.

>>> rows_of(("a",), [("<script>",)])
'<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;script&gt;</td></tr></tbody></table>'
"""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Markup", "definition", "escaped", "joined", "page", "rows_of", "small_image", "thumbnail", "thumbnail_of"]

_PIXELS = 64
_CONTROLS = {*range(9), 11, 12, *range(14, 32), *range(127, 160)}
_TURNING = {0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}  # marks of the direction of text
_OBEYED = dict.fromkeys(_CONTROLS | _TURNING, "\N{REPLACEMENT CHARACTER}")


class Markup(str):
    """Text that is HTML already; nothing else is ever let through unescaped."""


def escaped(value: object) -> "Markup":
    r"""Return text so that nothing in it is HTML, or turns what follows around; what is HTML already stays.

    Examples
    --------
    >>> escaped("<b>"), escaped("gpj.\u202eevil")
    ('&lt;b&gt;', 'gpj.�evil')
    """
    return value if isinstance(value, Markup) else Markup(html.escape(str(value).translate(_OBEYED)))


def joined(pieces: Iterable[Markup]) -> Markup:
    """Return pieces of HTML one after the other."""
    return Markup("".join(escaped(piece) for piece in pieces))


def page(title: str, body: Markup) -> Markup:
    """Return a title over a body."""
    return Markup(f"<div>{f'<b>{escaped(title)}</b>' if title else ''}{escaped(body)}</div>")


def rows_of(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """Return a table."""
    head = "".join(f"<th>{escaped(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return Markup(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def definition(facts: Mapping[str, object]) -> Markup:
    """Return a table of names and what they are."""
    body = "".join(f"<tr><th>{escaped(name)}</th><td>{escaped(value)}</td></tr>" for name, value in facts.items())
    return Markup(f"<table><tbody>{body}</tbody></table>")


def small_image(folder: Path, image_id: str, pixels: int = _PIXELS) -> "Image.Image | None":
    """Return an image of ``folder``, made small; None where it cannot be read or lies outside."""
    try:
        file = (folder / image_id).resolve()
        return _small(file, pixels) if file.is_relative_to(folder.resolve()) else None
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name that is none
        return None


def thumbnail(folder: Path, image_id: str, pixels: int = _PIXELS) -> Markup:
    """Return a small picture of an image of ``folder``, or nothing where it cannot be read or lies outside."""
    return _picture(small_image(folder, image_id, pixels))


def thumbnail_of(data: bytes, pixels: int = _PIXELS) -> Markup:
    """Return a small picture of the bytes of an image file, or nothing where they are none."""
    return _picture(_small(io.BytesIO(data), pixels))


def _small(file: Path | io.BytesIO, pixels: int) -> "Image.Image | None":
    from PIL import Image

    from pipelines.extract.images import FORMATS, MAX_PIXELS

    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:  # where Pillow itself only warns
                return None
            image.draft("RGB", (pixels, pixels))
            small = image.convert("RGB")
            small.thumbnail((pixels, pixels))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return small


def _picture(small: "Image.Image | None") -> Markup:
    if small is None:
        return Markup("")
    data = io.BytesIO()
    small.save(data, "JPEG")
    return Markup(f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">')
