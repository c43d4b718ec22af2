"""Photograph-like images for tests: 1/f noise under a few shapes, in every format and mode people have.

A photograph has energy at all scales and edges in all directions; flat or white-noise images hide errors of
resizing, chroma and rounding.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["ODD_FILES", "broken_files", "photograph", "write_photographs"]


def photograph(seed: int, width: int = 96, height: int = 72) -> np.ndarray:
    """Return ``(height, width, 3)`` uint8 pixels: coloured 1/f noise under five ellipses."""
    draw = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    spectrum = np.fft.fft2(draw.standard_normal((3, height, width))) / frequency
    noise = np.fft.ifft2(spectrum).real
    noise = (noise - noise.mean()) / noise.std()
    image = 128 + 45 * (0.7 * noise[:1] + 0.3 * noise)
    y, x = np.mgrid[:height, :width]
    for _ in range(5):
        cx, cy = draw.uniform(0, width), draw.uniform(0, height)
        rx, ry = draw.uniform(0.05, 0.3) * width, draw.uniform(0.05, 0.3) * height
        inside = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1
        image[:, inside] = 0.3 * image[:, inside] + 0.7 * draw.uniform(0, 255, (3, 1))
    return np.clip(image, 0, 255).astype(np.uint8).transpose(1, 2, 0)


def write_photographs(folder: Path, n: int, *, seed: int = 0, first: int = 0, sizes: bool = True) -> list[str]:
    """Write ``n`` photographs in concept folders, mostly JPEG, some PNG and WebP; return their ids.

    ``sizes`` varies width and height; ``first`` numbers them onwards, so that images can be added.
    """
    ids = []
    for i in range(first, first + n):
        width, height = (96 + 8 * (i % 5), 72 + 8 * (i % 7)) if sizes else (96, 72)
        suffix = {3: "png", 7: "webp"}.get(i % 10, "jpg")
        name = f"concept_{i // 8:03d}/photo_{i:04d}.{suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        options = {"lossless": True} if suffix == "webp" else {"quality": 90} if suffix == "jpg" else {}
        Image.fromarray(photograph(seed * 100_000 + i, width, height)).save(folder / name, **options)
        ids.append(name)
    return ids


def png16(pixels: np.ndarray) -> bytes:
    """Return a 16-bit PNG of (h, w) or (h, w, 3) uint16 pixels, which Pillow can read but not always write."""
    colour_type = {2: 0, 3: 2}[pixels.ndim]
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def _rotated(pixels: np.ndarray, format: str, orientation: int = 6) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return _saved(Image.fromarray(pixels), format, exif=exif)


def _with_alpha(pixels: np.ndarray) -> Image.Image:
    alpha = np.zeros(pixels.shape[:2], np.uint8)
    alpha[:, alpha.shape[1] // 2 :] = 255
    return Image.fromarray(np.dstack([pixels, alpha]), "RGBA")


# Every unusual file that is nevertheless a picture: name to a function of (h, w, 3) pixels that returns bytes.
ODD_FILES: dict[str, Callable[[np.ndarray], bytes]] = {
    "grey.jpg": lambda p: _saved(Image.fromarray(p).convert("L"), "JPEG", quality=90),
    "cmyk.jpg": lambda p: _saved(Image.fromarray(p).convert("CMYK"), "JPEG", quality=90),
    "exif6.jpg": lambda p: _rotated(p, "JPEG"),
    "exif6.png": lambda p: _rotated(p, "PNG"),
    "exif6.tif": lambda p: _rotated(p, "TIFF"),
    "alpha.png": lambda p: _saved(_with_alpha(p), "PNG"),
    "alpha.webp": lambda p: _saved(_with_alpha(p), "WEBP", lossless=True, exact=True),
    "grey16.png": lambda p: png16(p[..., 0].astype(np.uint16) * 257),
    "colour16.png": lambda p: png16(p.astype(np.uint16) * 256 + p[..., ::-1]),
    "grey16.tif": lambda p: _saved(Image.fromarray(p[..., 0].astype(np.uint16) * 257), "TIFF"),
    "palette.png": lambda p: _saved(Image.fromarray(p).quantize(64), "PNG"),
    "bilevel.png": lambda p: _saved(Image.fromarray(p).convert("1"), "PNG"),
    "plain.bmp": lambda p: _saved(Image.fromarray(p), "BMP"),
    "animated.gif": lambda p: _saved(
        Image.fromarray(p).quantize(64), "GIF", save_all=True, append_images=[Image.fromarray(255 - p).quantize(64)]
    ),
    "png_inside.jpg": lambda p: _saved(Image.fromarray(p), "PNG"),
}


def broken_files(pixels: np.ndarray) -> dict[str, bytes]:
    """Return files that look like images by their names and are none: name to bytes."""
    jpeg = _saved(Image.fromarray(pixels), "JPEG", quality=90)
    png = _saved(Image.fromarray(pixels), "PNG")
    bomb = bytearray(png)
    bomb[16:24] = struct.pack(">II", 9000, 9000)  # 81 megapixels promised by the header alone
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    return {
        "empty.jpg": b"",
        "page.jpg": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "pointer.jpg": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n",
        "noise.jpg": np.random.default_rng(0).bytes(4096),
        "truncated.jpg": jpeg[: len(jpeg) // 2],
        "truncated.png": png[: len(png) // 2],
        "bomb.png": bytes(bomb),
    }
