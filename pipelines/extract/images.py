"""From the bytes of an image file to RGB pixels, always by the same rules.

The pixels are what a person would have been shown: turned as EXIF says, transparency on white, the first
frame of an animation, 16 bits made 8: of grey the nearest, of colour the high byte, all that Pillow gives
and at most one off. A plain 8-bit RGB file gives exactly
``PIL.Image.open(f).convert("RGB")``. What Pillow cannot decode is a `BadImage` with its reason, half a file above
all; of a JPEG that ends as one should and has damage before that, it shows what there is, as every viewer does.

A JPEG of that kind is decoded by simplejpeg, straight into an array: the same library underneath, the same pixels, in
three quarters of the time. Whatever it does not like is left to Pillow.
"""

import hashlib
import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "UNREADABLE", "BadImage", "DecodedImage", "decode", "read", "simplejpeg_agrees", "unreadable"]

MAX_PIXELS = 50_000_000
MAX_RATIO = 100  # of the sides: resizing the short side of a 1 x 50,000 strip to 224 would fill the memory
MAX_SCANS = 100  # of a JPEG: an honest one has ten, and each of a repeated one costs seconds and 23 bytes
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")

# Reasons that begin so are the disk's fault, not the file's: such an image is tried again by every run.
UNREADABLE = "cannot be read"

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow warns about odd metadata and about sizes we refuse ourselves; neither is worth a line on stderr.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image as pixels, with what identifies its file.

    Attributes
    ----------
    rgb : (height, width, 3) uint8
        The pixels, upright.
    sha256 : str
        Of the bytes of the file.
    mode : str
        Pillow's name of how the file holds its pixels: ``RGB``, ``L``, ``CMYK``, ``I;16``.
    """

    rgb: np.ndarray
    sha256: str
    mode: str

    @property
    def image(self) -> Image.Image:
        """The pixels as Pillow has them, of mode RGB."""
        return Image.fromarray(self.rgb)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.rgb.shape[1], self.rgb.shape[0]


@dataclass(frozen=True, slots=True)
class BadImage:
    """A file that gives no pixels: one line that says why, and its hash where it could be read."""

    reason: str
    sha256: str = ""


class _Refused(Exception):
    """A file that Pillow would decode, but not to something that means one picture."""


def read(path: Path) -> DecodedImage | BadImage:
    """Read, hash and decode one image file.

    Examples
    --------
    >>> read(Path("no-such.jpg")).reason
    'cannot be read: No such file or directory'
    """
    try:
        return decode(path.read_bytes())
    except OSError as problem:
        return BadImage(unreadable(problem))


def decode(data: bytes) -> DecodedImage | BadImage:
    """Decode the bytes of one image file by the rules of this module.

    Examples
    --------
    >>> decode(b"").reason
    'the file is empty'
    >>> decode(b"<html><body>404</body></html>").reason
    'a web page, not an image'
    """
    sha256 = hashlib.sha256(data).hexdigest()
    reason = _not_an_image(data)
    if reason:
        return BadImage(reason, sha256)
    try:
        # A flag of the process that anyone may have set: half an image must not pass for a whole one.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _Refused(f"{width} x {height} pixels, more than {MAX_PIXELS // 1_000_000} million")
            if max(width, height) > MAX_RATIO * min(width, height):
                raise _Refused(f"{width} x {height} pixels, a strip and not a picture")
            if image.format in ("JPEG", "MPO") and _n_scans(data) > MAX_SCANS:
                raise _Refused(f"a JPEG of more than {MAX_SCANS} scans")
            mode = image.mode
            if mode == "RGB" and image.format == "JPEG" and _orientation(image) not in _TURNS and simplejpeg_agrees():
                rgb = _jpeg(data, width, height)
                if rgb is not None:
                    return DecodedImage(rgb, sha256, mode)
            image.load()
            return DecodedImage(np.array(_upright_rgb(image)), sha256, mode)
    except _Refused as problem:
        return BadImage(str(problem), sha256)
    except UnidentifiedImageError:
        return BadImage("not an image in a known format", sha256)
    except Image.DecompressionBombError:
        return BadImage(f"more than {MAX_PIXELS // 1_000_000} million pixels", sha256)
    except MemoryError:
        return BadImage(f"{UNREADABLE}: not enough memory to decode it", sha256)
    except Exception as problem:  # hostile bytes make Pillow's decoders raise nearly anything
        return BadImage(f"cannot be decoded: {_one_line(problem)}", sha256)


def unreadable(problem: OSError) -> str:
    """Return the reason for a file whose bytes cannot be had.

    Examples
    --------
    >>> unreadable(PermissionError(13, "Permission denied"))
    'cannot be read: Permission denied'
    """
    return f"{UNREADABLE}: {_one_line(problem.strerror or problem)}"


def _not_an_image(data: bytes) -> str:
    """Name the things that downloads leave in place of an image; empty for anything else."""
    if not data:
        return "the file is empty"
    head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "a web page, not an image"
    if head.startswith(b"version https://git-lfs"):
        return "a git-lfs pointer, not an image"
    return ""


def _n_scans(data: bytes) -> int:
    """Count the marks that begin a scan of a JPEG: by NumPy beside other threads, a megabyte at a time."""
    found, marks = 0, np.frombuffer(data, np.uint8)
    for first in range(0, len(marks), 1_000_000):
        here = marks[first : first + 1_000_001]
        found += int(np.count_nonzero((here[:-1] == 0xFF) & (here[1:] == 0xDA)))
    return found


def _jpeg(data: bytes, width: int, height: int) -> np.ndarray | None:
    """Decode a whole and sound JPEG of this size; None of any other."""
    import simplejpeg  # not everywhere: see simplejpeg_agrees

    try:
        if simplejpeg.decode_jpeg_header(data)[:2] != (height, width):
            return None
        rgb: np.ndarray = simplejpeg.decode_jpeg(data, "RGB")
    except Exception:  # whatever it is, Pillow says whether it is the image's fault
        return None
    return rgb


@cache
def simplejpeg_agrees() -> bool:
    """Say whether simplejpeg works here, and Pillow was built with a library that decodes as simplejpeg's does."""
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=75)
    try:
        import simplejpeg

        with Image.open(file) as image:
            return np.array_equal(simplejpeg.decode_jpeg(file.getvalue(), "RGB"), np.asarray(image))
    except Exception:  # missing, or made for another NumPy: no fault of an image
        return False


def _upright_rgb(image: Image.Image) -> Image.Image:
    turn = _TURNS.get(_orientation(image))
    rgb = _to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; damaged EXIF leaves the pixels as they are."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # metadata is read by many small parsers, and a picture is not lost with it
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _from_16_bit(image)
    if image.mode in ("I", "F"):
        raise _Refused(f"pixels of mode {image.mode} have no agreed range")
    if image.has_transparency_data:
        # Converting straight to RGB would reveal whatever colour hides under transparent pixels.
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Rescale 0..65535 to 0..255 with rounding; Pillow's own conversion would cut everything off at 255."""
    wide = np.asarray(image).astype(np.uint32)
    grey = ((wide + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[wide == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _one_line(problem: Exception | str) -> str:
    return " ".join(str(problem).split())[:200] or type(problem).__name__
