"""From files to pixels, and from folders, zips and tars to ids."""

import io
import os
import sys
import tarfile
import zipfile
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from pipelines.extract.images import MAX_SCANS, BadImage, DecodedImage, decode, read, simplejpeg_agrees
from pipelines.extract.sources import open_images, scan
from stores.errors import EmbedctlError
from tests.photos import ODD_FILES, broken_files, photograph, png16, write_photographs

PIXELS = photograph(1)


def pixels_of(data: bytes) -> np.ndarray:
    decoded = decode(data)
    assert isinstance(decoded, DecodedImage), decoded
    return decoded.rgb


def encoded(pixels: np.ndarray, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("quality", [30, 75, 95])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_plain_jpeg_gives_exactly_what_pillow_gives(tmp_path, quality, subsampling):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(photograph(quality, 61, 47), "JPEG", quality=quality, subsampling=subsampling))
    with Image.open(path) as image:
        assert np.array_equal(read(path).rgb, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("options", [{"progressive": True}, {"keep_rgb": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_jpeg_of_a_rarer_kind_gives_exactly_what_pillow_gives(options):
    data = encoded(photograph(3, 61, 47), "JPEG", **options)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(pixels_of(data), image)


def test_a_sound_jpeg_does_not_go_through_pillows_decoder(monkeypatch):
    assert simplejpeg_agrees()  # which Pillow is asked for
    monkeypatch.setattr(JpegImageFile, "load", None)
    assert pixels_of(encoded(PIXELS, "JPEG")).shape == PIXELS.shape


def _fail(*given):
    raise TypeError("numpy.dtype size changed")


@pytest.mark.parametrize("module", [None, SimpleNamespace(decode_jpeg=_fail)], ids=["missing", "of another NumPy"])
def test_without_the_faster_decoder_a_jpeg_is_pillows_and_not_a_bad_image(monkeypatch, module):
    data = encoded(PIXELS, "JPEG")
    expected = pixels_of(data)
    monkeypatch.setitem(sys.modules, "simplejpeg", module)
    simplejpeg_agrees.cache_clear()
    try:
        assert np.array_equal(pixels_of(data), expected)
    finally:
        simplejpeg_agrees.cache_clear()


def test_what_the_faster_decoder_fails_at_is_left_to_pillow(monkeypatch):
    data = encoded(PIXELS, "JPEG")
    expected = pixels_of(data)
    assert simplejpeg_agrees()
    monkeypatch.setattr("simplejpeg.decode_jpeg", _fail)
    assert np.array_equal(pixels_of(data), expected)


def test_a_jpeg_that_repeats_a_scan_without_end_is_not_decoded():
    data = encoded(PIXELS, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan, n_scans = data[last:-2], data.count(b"\xff\xda")
    most = data[:-2] + scan * (MAX_SCANS - n_scans) + data[-2:]
    assert isinstance(decode(most), DecodedImage)
    assert decode(most[:-2] + scan + data[-2:]).reason == "a JPEG of more than 100 scans"


@settings(max_examples=60)
@given(st.data())
def test_a_broken_jpeg_is_what_pillow_makes_of_it(data):
    file = bytearray(encoded(photograph(5, 40, 56), "JPEG", progressive=data.draw(st.booleans())))
    for place in data.draw(st.lists(st.integers(2, len(file) - 1), max_size=3)):
        file[place] = data.draw(st.integers(0, 255))
    broken = bytes(file[: data.draw(st.integers(len(file) // 2, len(file)))])
    ours = decode(broken)
    with mock.patch("pipelines.extract.images.simplejpeg_agrees", lambda: False):
        theirs = decode(broken)
    assert type(ours) is type(theirs)
    if isinstance(ours, BadImage):
        assert ours == theirs
    else:
        assert np.array_equal(ours.rgb, theirs.rgb)


@pytest.mark.parametrize("name", sorted(ODD_FILES))
def test_every_odd_file_becomes_rgb_bytes_of_the_picture_it_shows(name):
    shown = pixels_of(ODD_FILES[name](PIXELS))
    expected = np.rot90(PIXELS, k=-1) if name.startswith("exif6") else PIXELS
    assert shown.dtype == np.uint8 and shown.shape == expected.shape
    if "alpha" in name:
        middle = expected.shape[1] // 2
        assert np.array_equal(shown[:, middle:], expected[:, middle:]) and (shown[:, :middle] == 255).all()
        return
    if name.startswith("grey16"):
        expected = expected[..., :1].repeat(3, axis=2)
    elif name.startswith(("grey", "bilevel")):
        expected = np.asarray(Image.fromarray(PIXELS).convert("L"))[..., None].repeat(3, axis=2)
    lossless = name.startswith(("grey16", "colour16", "plain", "png_inside")) or name in ("exif6.png", "exif6.tif")
    if lossless:
        assert np.array_equal(shown, expected)
    # Lossy files differ in detail and agree in the large: means over 8 x 8 pixels.
    blocks = [a[: len(a) // 8 * 8, : a.shape[1] // 8 * 8].astype(float) for a in (shown, expected)]
    means = [a.reshape(len(a) // 8, 8, a.shape[1] // 8, 8, 3).mean((1, 3)) for a in blocks]
    assert np.abs(means[0] - means[1]).mean() < (6 if name != "bilevel.png" else 12)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_exif_turns_the_picture_once_as_pillows_own_transposition_does(format, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PIXELS, format, exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert np.array_equal(pixels_of(data), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_leaves_the_picture_upright():
    data = encoded(PIXELS, "JPEG", exif=b"Exif\0\0MM\0\x2a\xff\xff\xff\xff\x01")
    assert pixels_of(data).shape == PIXELS.shape


def test_sixteen_bits_are_rescaled_with_rounding_and_not_cut_off():
    ramp = np.arange(0, 65536, 97, dtype=np.uint16).reshape(26, 26)
    assert np.array_equal(pixels_of(png16(ramp))[..., 0], np.round(ramp / 257).astype(np.uint8))


def test_colour_under_transparent_pixels_stays_hidden_and_opaque_pixels_stay_exact():
    rgba = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 255, np.uint8)])
    assert np.array_equal(pixels_of(encoded(rgba, "PNG")), PIXELS)
    rgba[..., 3] = 0
    assert (pixels_of(encoded(rgba, "PNG")) == 255).all()
    rgba[..., 3] = 51  # a fifth of the picture over four fifths of white
    assert np.abs(pixels_of(encoded(rgba, "PNG")) - (0.2 * PIXELS + 204)).max() <= 1


def test_a_transparent_colour_of_a_palette_or_of_rgb_is_white():
    image = Image.fromarray(PIXELS).quantize(16)
    palette = io.BytesIO()
    image.save(palette, "PNG", transparency=image.getpixel((0, 0)))
    assert (pixels_of(palette.getvalue())[0, 0] == 255).all()
    keyed = encoded(PIXELS, "PNG", transparency=tuple(int(v) for v in PIXELS[3, 4]))
    assert (pixels_of(keyed)[3, 4] == 255).all()


def test_an_animation_shows_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for format in ("GIF", "WEBP", "PNG"):
        buffer = io.BytesIO()
        frames[0].save(buffer, format, save_all=True, append_images=frames[1:], lossless=True)
        assert tuple(pixels_of(buffer.getvalue())[4, 4]) == (255, 0, 0) or format == "WEBP"
        assert pixels_of(buffer.getvalue())[4, 4].argmax() == 0


@pytest.mark.parametrize("name", sorted(broken_files(PIXELS)))
def test_a_broken_file_is_named_in_one_printable_line_and_still_hashed(name):
    found = decode(broken_files(PIXELS)[name])
    assert isinstance(found, BadImage)
    assert found.reason and found.reason.isprintable() and len(found.sha256) == 64


def test_a_bomb_is_refused_by_its_header_before_any_pixel_is_decoded(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert decode(broken_files(PIXELS)["bomb.png"]).reason == "9000 x 9000 pixels, more than 50 million"


def test_a_strip_is_refused_because_resizing_it_would_fill_the_memory():
    strip = np.zeros((2, 40_000, 3), np.uint8)
    assert decode(encoded(strip, "PNG")).reason == "40000 x 2 pixels, a strip and not a picture"


def test_half_a_picture_is_bad_even_when_the_process_was_told_to_accept_it(monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.LOAD_TRUNCATED_IMAGES", True)
    assert isinstance(decode(broken_files(PIXELS)["truncated.jpg"]), BadImage)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_an_agreed_range_are_refused_rather_than_guessed(mode):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[..., 0]).convert(mode).save(buffer, "TIFF")
    assert "no agreed range" in decode(buffer.getvalue()).reason


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"]), st.data())
def test_flipped_bytes_never_raise(format, data):
    broken = bytearray(encoded(PIXELS, format))
    for position in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=8)):
        broken[position] = data.draw(st.integers(0, 255))
    assert isinstance(decode(bytes(broken)), (DecodedImage, BadImage))


def test_sixteen_bits_become_eight_grey_by_rounding_and_colour_by_its_high_byte():
    values = np.random.default_rng(0).integers(0, 2**16, (40, 30, 3)).astype(np.uint16)
    nearest = np.round(values / 257).astype(np.uint8)
    assert np.array_equal(pixels_of(png16(values[..., 0])), nearest[..., :1].repeat(3, axis=2))
    colour = pixels_of(png16(values))
    assert np.array_equal(colour, values >> 8) and (nearest != colour).any()
    assert np.abs(nearest.astype(int) - colour).max() == 1


def test_ids_are_paths_below_the_root_sorted_by_bytes_without_hidden_or_foreign_files(tmp_path):
    names = ["b/z.jpg", "b/a.JPG", "B/a.png", "é.webp", "a-b/x.gif", "a/x.tiff", "a.jpeg"]
    for name in [*names, "a/._x.jpg", ".cache/x.jpg", "a/notes.txt", "a/x.jpg.part", "Thumbs.db"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert scan(tmp_path) == sorted(names, key=str.encode)


def test_zip_and_tar_hold_the_same_images_as_the_folder_they_were_made_of(tmp_path):
    folder = tmp_path / "images"
    ids = write_photographs(folder, 5)
    (folder / "._x.jpg").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        archive.add(folder, arcname=".")
    expected = {name: (folder / name).read_bytes() for name in sorted(ids)}
    for packed in ("images.zip", "images.tar"):
        source = open_images(tmp_path / packed)
        assert {name: source.read(name) for name in source.stamps} == expected
        assert [stamp.bytes for stamp in source.stamps.values()] == [len(data) for data in expected.values()]


def test_a_compressed_tar_is_refused_with_the_way_out(tmp_path):
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"))
    with pytest.raises(EmbedctlError) as problem:
        scan(tmp_path / "images.tar.gz")
    assert "unpack" in problem.value.hint


def test_links_are_followed_inside_the_root_and_nowhere_else(tmp_path):
    root = tmp_path / "images"
    write_photographs(root, 1)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(encoded(PIXELS, "JPEG"))
    (root / "inside.jpg").symlink_to(root / "concept_000/photo_0000.jpg")
    (root / "again").symlink_to(root / "concept_000")
    (root / "concept_000/circle").symlink_to(root)
    (root / "outside.jpg").symlink_to(secret)
    (root / "nothing.jpg").symlink_to(root / "gone.jpg")
    os.mkfifo(root / "pipe.jpg")
    source = open_images(root)
    good = ["again/photo_0000.jpg", "concept_000/photo_0000.jpg", "inside.jpg"]
    assert list(source.stamps) == sorted([*good, "nothing.jpg", "outside.jpg", "pipe.jpg"])
    assert len({source.read(name) for name in good}) == 1
    for name, reason in (("outside.jpg", "leads out"), ("nothing.jpg", "No such file"), ("pipe.jpg", "regular")):
        with pytest.raises(OSError, match=reason):
            source.read(name)
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(EmbedctlError, match="leads out of"):
        open_images(root)


def test_a_missing_or_empty_folder_is_an_expected_problem(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    for name in ("missing", "empty", "file.txt"):
        with pytest.raises(EmbedctlError) as problem:
            scan(tmp_path / name)
        assert problem.value.exit_code == 2 and problem.value.hint


def test_a_file_name_that_is_not_utf8_is_named(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.jpg", "wb"):
        pass
    with pytest.raises(EmbedctlError, match="not UTF-8") as problem:
        scan(tmp_path)
    assert str(problem.value).encode()
