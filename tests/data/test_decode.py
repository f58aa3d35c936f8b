"""A file becomes its pixels, upright and of the wanted size, or an error that names it."""

import os
import re
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import EpsImagePlugin, ExifTags, Image

from glimpse import progress_bar
from glimpse.data.decode import PixelFormat, decode, probe, reading
from glimpse.errors import UserError
from makers import save_image

# Modes and orientation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    """A white top edge and a grey left edge are there however the camera was held."""
    upright = np.zeros((16, 24), np.uint8)
    upright[:8], upright[8:, :8] = 255, 128
    # how the camera stores the upright image, by the tag that tells how to undo it
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: np.rot90(upright), 7: np.rot90(upright, 2).T, 8: np.rot90(upright, 3),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for path in paths:
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=95)
    wanted = probe(paths, None)
    assert (wanted.height, wanted.width, wanted.channels) == (16, 24, 1)
    decoded = decode(paths[0], wanted)[..., 0].astype(int)
    assert np.abs(decoded - upright).max() < 12


def test_grey_becomes_rgb_where_others_have_colour(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (6, 8, 1), np.uint8)
    save_image(grey, tmp_path / "a.png")
    save_image(np.repeat(grey, 3, axis=2), tmp_path / "b.png")
    wanted = probe([tmp_path / "a.png", tmp_path / "b.png"], None)
    assert wanted.channels == 3
    np.testing.assert_array_equal(decode(tmp_path / "a.png", wanted), np.repeat(grey, 3, axis=2))


def test_one_colour_image_among_many_grey_ones_keeps_its_colours(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (6, 8, 1), np.uint8)
    paths = [tmp_path / f"{number}.png" for number in range(200)]  # of which every third is opened
    for path in paths:
        save_image(grey, path)
    assert probe(paths, None).channels == 1
    save_image(np.repeat(grey, 3, axis=2), paths[100])
    assert probe(paths, None).channels == 3


def test_only_grey_files_have_one_channel(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (6, 8, 1), np.uint8)
    save_image(grey, tmp_path / "a.png")
    wanted = probe([tmp_path / "a.png"], None)
    assert wanted == PixelFormat(6, 8, 1)
    np.testing.assert_array_equal(decode(tmp_path / "a.png", wanted), grey)


def test_transparency_becomes_white_and_palettes_become_rgb(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    wanted = PixelFormat(6, 8, 3)
    image = Image.fromarray(colour)
    image.putalpha(200)
    image.save(tmp_path / "alpha.jpg", format="PNG")  # not what its name says
    on_white = np.round(colour * (200 / 255) + 55)
    assert np.abs(decode(tmp_path / "alpha.jpg", wanted) - on_white).max() <= 1
    drawing = Image.new("LA", (8, 6))  # black, and transparent but for one pixel
    drawing.putpixel((1, 2), (0, 255))
    drawing.save(tmp_path / "drawing.png")
    shown = decode(tmp_path / "drawing.png", PixelFormat(6, 8, 1))
    assert shown[2, 1] == 0
    assert (shown == 255).sum() == 47
    palette = Image.fromarray(colour).quantize(64)
    palette.save(tmp_path / "palette.gif")
    assert decode(tmp_path / "palette.gif", wanted).shape == (6, 8, 3)


def test_16_bit_grey_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.arange(0, 65536, 65536 // 48, dtype=np.uint16)[:48].reshape(6, 8)
    Image.fromarray(shades).save(tmp_path / "a.png")
    wanted = probe([tmp_path / "a.png"], None)
    assert wanted.channels == 1
    assert np.abs(decode(tmp_path / "a.png", wanted)[..., 0] - shades / 256).max() <= 1


# More than 8 bits -------------------------------------------------------------------------------

RAMP = np.linspace(0, 1, 48).reshape(6, 8)


@pytest.mark.parametrize(
    ("dtype", "white"),
    [("|u1", 255), ("<u2", 65535), (">u2", 65535), ("<u2", 4095), (">u2", 200), ("<i4", 2**31 - 1), ("<i4", 65535),
     ("<i4", 255), ("<f4", 1.0), ("<f4", 255.0), ("<f4", 65535.0)],
)  # fmt: skip
@pytest.mark.parametrize("orientation", [1, 6])
def test_images_of_more_than_8_bits_reach_from_black_to_white(
    tmp_path: Path, dtype: str, white: float, orientation: int
) -> None:
    values = (RAMP * white).astype(dtype)
    if dtype == "<f4":
        values.flat[-1] *= 1 + 1e-6  # as rounding leaves it
    mode = {"|u1": "L", ">u2": "I;16B", "<u2": "I;16", "<i4": "I", "<f4": "F"}[dtype]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "a.tif"
    Image.frombytes(mode, (8, 6), values.tobytes()).save(path, exif=exif)
    wanted = probe([path], None)
    decoded = decode(path, wanted)[..., 0].astype(float)
    if orientation == 6:
        decoded = np.rot90(decoded)
    level = next(x for x in (1, 200, 255, 4095, 65535, 2**31 - 1) if white <= x)
    brightest = 200 if level == 200 else 255
    assert wanted.channels == 1
    assert np.abs(decoded - RAMP * brightest).max() <= 1


def test_equal_values_are_equal_in_every_image(tmp_path: Path) -> None:
    paths = [tmp_path / "dark.tif", tmp_path / "bright.tif"]
    for path, most in zip(paths, (1000, 60000), strict=True):
        Image.fromarray(np.array([[0, 800], [900, most]], np.uint16)).save(path)
    wanted = probe(paths, None)
    dark, bright = (decode(path, wanted)[0, 1, 0] for path in paths)
    assert dark == bright == 800 // 256
    with pytest.raises(UserError, match=r"bright\.tif has values above 4095"):
        decode(paths[1], probe(paths[:1], None))


@pytest.mark.parametrize("values", [[-5.0, 1.0], [0.0, np.nan], [0.0, 1e30], [-3, 7]])
def test_values_that_no_rule_covers_are_named(tmp_path: Path, values: list[float]) -> None:
    dtype = np.int32 if isinstance(values[0], int) else np.float32
    Image.fromarray(np.array([values], dtype)).save(tmp_path / "odd.tif")
    with pytest.raises(UserError, match=r"odd\.tif has values from .* expected 0 to"):
        probe([tmp_path / "odd.tif"], None)


# Rectangles -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_a_strip_fits_a_rectangle(tmp_path: Path, fit: str) -> None:
    """Left third red, middle green, right blue; 10 high and 90 wide, to 30 high and 60 wide."""
    strip = np.zeros((10, 90, 3), np.uint8)
    for third in range(3):
        strip[:, 30 * third : 30 * third + 30, third] = 255
    save_image(strip, tmp_path / "a.png")
    wanted = probe([tmp_path / "a.png"], (30, 60), fit=fit)
    decoded = decode(tmp_path / "a.png", wanted)
    assert decoded.shape == (30, 60, 3)
    seen = [tuple(int(v > 127) for v in decoded[15, x]) for x in (2, 30, 57)]
    whole = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert seen == ([(0, 1, 0)] * 3 if fit == "crop" else whole)
    assert (decoded[2].max() == 0) == (fit == "pad")


# What cannot be decoded -------------------------------------------------------------------------


def png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def bomb(path: Path) -> None:
    """A PNG of 20,000×10,000 pixels, 600 MB once decoded, in a few bytes."""
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def truncated_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:30])


def web_page(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "gif"])
@pytest.mark.parametrize(
    "damage", [truncated, truncated_header, web_page, empty, bomb, Path.unlink]
)
def test_what_cannot_be_decoded_is_named(
    tmp_path: Path, ending: str, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / f"seven.{ending}"
    save_image(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), path)
    damage(path)
    with pytest.raises(UserError) as error:
        decode(path, PixelFormat(40, 40, 3))
    assert str(path) in str(error.value)
    assert re.search("(restore it|replace it or move it elsewhere)$", str(error.value))
    assert len(str(error.value).splitlines()) == 1


def test_no_program_is_started_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would hand PostScript to Ghostscript, whatever the file is called."""
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'STARTED'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # look for it again
    path = tmp_path / "seven.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n%%EndComments\n%%EOF\n")
    with pytest.raises(UserError, match=f"{path} is not an image that Pillow can read"):
        decode(path, PixelFormat(40, 40, 3))
    assert not (tmp_path / "STARTED").exists()
    for name in ("TGA", "WEBP", "TIFF", "PCX"):  # all other formats are read
        Image.new("RGB", (40, 40)).save(path, name)
        assert decode(path, PixelFormat(40, 40, 3)).shape == (40, 40, 3)


def test_a_bomb_is_refused_by_what_it_would_become(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="200000000 pixels"):
        probe([tmp_path / "bomb.png"], (64, 64))


# Sizes ------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
    """A 30×20 and a 20×40 image: black but for a white square in the middle."""
    paths = []
    for width, height in ((30, 20), (20, 40)):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[height // 2 - 5 : height // 2 + 5, width // 2 - 5 : width // 2 + 5] = 255
        paths.append(tmp_path / f"{width}x{height}.png")
        save_image(pixels, paths[-1])
    return paths


def test_mixed_sizes_are_told_with_what_to_type(mixed: list[Path]) -> None:
    with pytest.raises(UserError, match=r"data\.presize=64") as error:
        probe(mixed, None)
    assert len(str(error.value).splitlines()) == 1
    for found in ("30x20.png is 30×20", "20x40.png is 20×40"):
        assert found in str(error.value)


def test_a_stray_size_is_told_with_what_to_type(mixed: list[Path]) -> None:
    with pytest.raises(UserError, match=r"data\.presize=64") as error:
        decode(mixed[1], PixelFormat(20, 30, 3))
    assert str(mixed[1]) in str(error.value)
    assert "20×40" in str(error.value)


def test_presize_cuts_the_middle_and_resizes_it(mixed: list[Path]) -> None:
    wanted = probe(mixed, (20, 20))
    assert wanted == PixelFormat(20, 20, 3, fit="crop")
    expected = np.zeros((20, 20, 3), np.uint8)
    expected[5:15, 5:15] = 255
    for path in mixed:  # cut to 20×20; no pixel is stretched
        np.testing.assert_array_equal(decode(path, wanted), expected)
    assert decode(mixed[0], probe(mixed, (10, 10))).shape == (10, 10, 3)


def photograph(path: Path, *, orientation: int = 1) -> None:
    """A JPEG of 900×600 pixels: grey waves of many lengths."""
    y, x = np.mgrid[:600, :900]
    waves = sum(np.sin(x / length + y / (2 * length)) for length in (3, 12, 50))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray((127 + 42 * waves).astype(np.uint8)).save(path, exif=exif, quality=95)


@pytest.mark.parametrize("side", [32, 64, 128, 256])
def test_a_large_photograph_decoded_at_a_fraction_looks_the_same(tmp_path: Path, side: int) -> None:
    path = tmp_path / "large.jpg"
    photograph(path)
    with Image.open(path) as image:
        whole = image.crop((150, 0, 750, 600)).resize((side, side), Image.Resampling.BILINEAR)
    decoded = decode(path, PixelFormat(side, side, 1, fit="crop"))[..., 0].astype(int)
    difference = np.abs(decoded - np.asarray(whole))
    assert difference.mean() < 2
    assert difference.max() < 12


def test_a_large_photograph_is_turned_before_its_middle_is_cut(tmp_path: Path) -> None:
    upright, turned = tmp_path / "upright.jpg", tmp_path / "turned.jpg"
    photograph(upright)
    photograph(turned, orientation=6)  # by a quarter, clockwise
    wanted = PixelFormat(64, 64, 1, fit="crop")
    expected = np.rot90(decode(upright, wanted), -1).astype(int)
    assert np.abs(decode(turned, wanted) - expected).max() <= 2


@pytest.mark.parametrize("size", [(900, 12), (3, 500), (1, 3000)])
def test_padding_keeps_a_line_of_an_elongated_image(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "line.png"
    Image.new("RGB", size, "white").save(path)
    pixels = decode(path, PixelFormat(32, 32, 3, fit="pad"))
    assert (pixels == 255).all(2).sum() == 32


def save_16_bits(path: Path, values: np.ndarray) -> None:
    """Write (H, W, 3) uint16 as a PNG, which Pillow cannot."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))


def test_colour_that_uses_few_of_16_bits_is_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    save_16_bits(tmp_path / "full.png", random.integers(0, 65536, (8, 8, 3)))
    assert probe([tmp_path / "full.png"], None).channels == 3
    save_16_bits(tmp_path / "dark.png", random.integers(0, 4096, (8, 8, 3)))
    with pytest.raises(UserError, match=r"dark\.png has 16 bits per channel.* all would be black"):
        probe([tmp_path / "dark.png"], None)


@pytest.mark.parametrize(
    ("values", "white"),
    [(np.float32(300), "65535"), (np.int32(100_000), "2.14748e+09"), (np.uint16(4100), "65535")],
)
def test_deep_images_that_would_be_black_are_refused(
    tmp_path: Path, values: np.number, white: str
) -> None:
    Image.fromarray(np.array([[0, values]], values.dtype)).save(tmp_path / "dark.tif")
    Image.fromarray(np.array([[0, 1]], values.dtype)).save(tmp_path / "darker.tif")
    said = rf"dark\.tif has the highest value .*, {values:g}, but white is {re.escape(white)}, so all would be black"
    with pytest.raises(UserError, match=said):
        probe([tmp_path / "darker.tif", tmp_path / "dark.tif"], None)


def test_the_search_for_colour_shows_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress_bar, "LINE_SECONDS", 0)
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        save_image(np.zeros((4, 4, 1), np.uint8), path)
    assert probe(paths, None).channels == 1
    assert "looking for colour: 2 of 3 images" in capsys.readouterr().err


def test_white_at_0_is_refused_in_deep_images(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    with pytest.raises(UserError, match=r"inverted\.tif .* its white is 0"):
        probe([tmp_path / "inverted.tif"], None)


def test_a_deep_image_brighter_than_the_sample_has_a_remedy_that_helps(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 5000, np.uint16)).save(tmp_path / "bright.png")
    remedy = r"bright\.png has values above 4095.* save the images with 8 bits, with black at 0"
    with pytest.raises(UserError, match=remedy):
        decode(tmp_path / "bright.png", PixelFormat(8, 8, 1, white=4095))


def test_that_only_the_first_page_is_used_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "one.tif")
    probe([tmp_path / "pages.tif", tmp_path / "one.tif"], None)
    told = capsys.readouterr().out
    assert "note: 1 sampled image with several pages or frames, such as " in told
    assert "pages.tif; only the first" in told


def test_threads_that_read_restore_the_filters_of_warnings(tmp_path: Path) -> None:
    """The first to begin is the first to end. Meanwhile, a bomb is refused."""
    save_image(np.zeros((4, 4, 1), np.uint8), tmp_path / "a.png")
    bomb(tmp_path / "bomb.png")
    before = list(warnings.filters)
    is_inside, may_end = (
        [threading.Event(), threading.Event()],
        [threading.Event(), threading.Event()],
    )

    def read(number: int) -> None:
        with reading(tmp_path / "a.png"):
            is_inside[number].set()
            may_end[number].wait(timeout=60)

    with ThreadPoolExecutor(2) as pool:
        readers = []
        for number in range(2):
            readers.append(pool.submit(read, number))
            assert is_inside[number].wait(timeout=60)
        for number in range(2):
            with pytest.raises(UserError, match="exceeds limit"):
                decode(tmp_path / "bomb.png", PixelFormat(4, 4, 1))
            may_end[number].set()
            readers[number].result()
    assert list(warnings.filters) == before
