"""Images are decoded once, rightly, and what cannot be decoded is named."""

import errno
import multiprocessing
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from glimpse.data import cache
from glimpse.data.cache import PixelFormat, Stored, decode, load_or_build, probe
from glimpse.data.spec import Arrays, Files, Source
from glimpse.errors import UserError
from makers import save_image

SMALL = PixelFormat(6, 8, 3, presize=False)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Ten 6×8 colour images without loss, labelled 0 to 4 twice."""
    random = np.random.default_rng(0)
    paths = [tmp_path / "images" / f"{number}.png" for number in range(10)]
    for path in paths:
        save_image(random.integers(0, 256, (6, 8, 3), np.uint8), path)
    return Files(paths, np.arange(10) % 5)


def build(
    folder: Path, train: Files | Arrays, *, num_workers: int = 1
) -> tuple[tuple[str, ...], dict[str, Stored]]:
    def read() -> Source:
        return Source(tuple("abcde"), train)

    return load_or_build(folder, read, lambda _: SMALL, num_workers=num_workers)


def never(*_: object) -> Source:
    raise AssertionError("the dataset was read again")


def pixels_of(files: Files) -> np.ndarray:
    pixels = []
    for path in files.paths:
        with Image.open(path) as image:
            pixels.append(np.asarray(image))
    return np.stack(pixels)


# Fingerprint ------------------------------------------------------------------------------------


def test_fingerprint_is_the_same_where_the_folder_moves(files: Files, tmp_path: Path) -> None:
    before = cache.fingerprint(tmp_path, files.paths, "a", None)
    assert cache.fingerprint(tmp_path, files.paths, "a", None) == before
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    paths = [moved / path.relative_to(tmp_path) for path in files.paths]
    assert cache.fingerprint(moved, paths, "a", None) == before


def longer(paths: list[Path]) -> None:
    times = paths[3].stat()
    paths[3].write_bytes(paths[3].read_bytes() + b" ")
    os.utime(paths[3], ns=(times.st_atime_ns, times.st_mtime_ns))


def touched(paths: list[Path]) -> None:
    os.utime(paths[3], ns=(0, 1))


def fewer(paths: list[Path]) -> None:
    del paths[3]


def renamed(paths: list[Path]) -> None:
    paths[3] = paths[3].rename(paths[3].with_name("new.png"))


@pytest.mark.parametrize("change", [longer, touched, fewer, renamed])
def test_fingerprint_changes_with_the_files(
    files: Files, tmp_path: Path, change: Callable[[list[Path]], None]
) -> None:
    paths = list(files.paths)
    before = cache.fingerprint(tmp_path, paths)
    change(paths)
    assert cache.fingerprint(tmp_path, paths) != before


def test_fingerprint_changes_with_the_settings(files: Files, tmp_path: Path) -> None:
    found = {
        cache.fingerprint(tmp_path, files.paths, *s) for s in ((), (None,), (32,), (64,), (64, "x"))
    }
    assert len(found) == 5


def test_fingerprint_names_a_missing_file(files: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data_batch_9 is missing"):
        cache.fingerprint(tmp_path, [*files.paths, tmp_path / "data_batch_9"])


# Building and mapping ---------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_cache_holds_the_pixels_labels_and_names(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 4)
    names, parts = build(tmp_path / "cache", files, num_workers=num_workers)
    assert names == tuple("abcde")
    assert list(parts) == ["train"]
    np.testing.assert_array_equal(parts["train"].images, pixels_of(files))
    np.testing.assert_array_equal(parts["train"].labels, files.labels)
    histogram = cache.histogram(pixels_of(files))
    np.testing.assert_array_equal(parts["train"].histogram, histogram)


def test_arrays_are_stored_as_they_are(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 1), np.uint8)
    _, parts = build(tmp_path / "cache", Arrays(images, np.arange(7) % 5))
    np.testing.assert_array_equal(parts["train"].images, images)


def test_every_part_is_stored(files: Files, tmp_path: Path) -> None:
    heldout = Files(files.paths[:4], files.labels[:4])
    test = Files(files.paths[4:6], files.labels[4:6])
    source = Source(tuple("abcde"), files, heldout, test)
    for read in (lambda: source, never):  # made, then mapped
        _, parts = load_or_build(tmp_path / "cache", read, lambda _: SMALL, num_workers=1)
        assert {n: len(p.images) for n, p in parts.items()} == {
            "train": 10,
            "heldout": 4,
            "test": 2,
        }


def test_a_second_start_reads_and_decodes_nothing(files: Files, tmp_path: Path) -> None:
    _, first = build(tmp_path / "cache", files)
    for path in files.paths:
        path.unlink()
    names, second = load_or_build(tmp_path / "cache", never, never, num_workers=1)  # type: ignore[arg-type]
    assert names == tuple("abcde")
    np.testing.assert_array_equal(first["train"].images, second["train"].images)


def test_images_are_mapped_and_cannot_be_spoilt(files: Files, tmp_path: Path) -> None:
    _, parts = build(tmp_path / "cache", files)
    images = parts["train"].images
    assert isinstance(images, np.memmap)
    images[:] = 0
    _, again = build(tmp_path / "cache", files)
    np.testing.assert_array_equal(again["train"].images, pixels_of(files))


def test_what_a_killed_process_left_is_removed(files: Files, tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "set-0123"
    leftover = folder.with_name("set-0123.partial-99999")
    leftover.mkdir(parents=True)
    (leftover / "train.npy").write_bytes(b"half")
    folder.with_name("set-0123.lock").touch()
    _, parts = build(folder, files)
    assert len(parts["train"].images) == 10
    assert sorted(p.name for p in folder.parent.iterdir()) == ["set-0123", "set-0123.lock"]


def test_an_error_leaves_no_cache_behind(files: Files, tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "set-0123"
    whole = files.paths[6].read_bytes()
    files.paths[6].write_bytes(b"")
    with pytest.raises(UserError, match=r"6\.png"):
        build(folder, files)
    assert [p.name for p in folder.parent.iterdir() if p.is_dir()] == []
    files.paths[6].write_bytes(whole)
    _, parts = build(folder, files)
    np.testing.assert_array_equal(parts["train"].images, pixels_of(files))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve")
def test_a_full_disk_is_found_out_before_decoding(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int, _start: int, _size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(cache, "decode", never)
    with pytest.raises(UserError, match=r"No space left on device; type data\.cache=false"):
        build(tmp_path / "cache", files)
    assert not list(tmp_path.glob("cache*partial*"))


def test_an_error_in_a_decoding_process_names_the_file(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 4)
    files.paths[6].write_bytes(b"")
    with pytest.raises(UserError, match=r"6\.png") as error:
        build(tmp_path / "cache", files, num_workers=2)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("num_workers", [1, 2])
def test_unreadable_files_are_left_out_where_asked(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    monkeypatch.setattr(cache, "CHUNK", 3)
    pixels = np.delete(pixels_of(files), [3, 4, 5, 7], axis=0)
    for row in (3, 4, 5, 7):
        web_page(files.paths[row])
    source = Source(tuple("abcde"), files, heldout=Files(files.paths[:2], files.labels[:2]))
    folder = tmp_path / "cache"
    for read in (lambda: source, never):
        _, parts = load_or_build(
            folder, read, lambda _: SMALL, num_workers=num_workers, skip_unreadable=True
        )
        np.testing.assert_array_equal(parts["train"].images, pixels)
        assert parts["train"].labels.tolist() == [0, 1, 2, 1, 3, 4]
        np.testing.assert_array_equal(parts["train"].histogram, cache.histogram(pixels))
        assert len(parts["heldout"].images) == 2
    assert [line.split()[0] for line in cache.unreadable(folder)] == [
        str(files.paths[row]) for row in (3, 4, 5, 7)
    ]


def test_a_class_with_no_image_left_is_named(files: Files, tmp_path: Path) -> None:
    for row in (3, 8):  # both of them
        web_page(files.paths[row])
    with pytest.raises(UserError, match=r"no image of the class d can be read.*3\.png"):
        load_or_build(
            tmp_path / "cache",
            lambda: Source(tuple("abcde"), files),
            lambda _: SMALL,
            num_workers=1,
            skip_unreadable=True,
        )


def test_an_image_of_another_size_is_an_error_even_where_bad_files_are_skipped(
    files: Files, tmp_path: Path
) -> None:
    save_image(np.zeros((9, 9, 3), np.uint8), files.paths[4])
    with pytest.raises(UserError, match=r"4\.png is 9×9"):
        load_or_build(
            tmp_path / "cache",
            lambda: Source(tuple("abcde"), files),
            lambda _: SMALL,
            num_workers=1,
            skip_unreadable=True,
        )


def slow_build(folder: Path, files: Files, log: Path, at_work: Path) -> None:
    """In another process: as `build`, noting that it reads, and slow to decode."""

    def read() -> Source:
        with log.open("a") as lines:
            lines.write("read\n")
        return Source(tuple("abcde"), files)

    def pixel_format(_: Source) -> PixelFormat:
        at_work.touch()
        time.sleep(0.5)
        return SMALL

    load_or_build(folder, read, pixel_format, num_workers=1)


@pytest.fixture
def processes(files: Files, tmp_path: Path) -> Iterator[list[BaseProcess]]:
    """Two that build the same cache."""
    spawn = multiprocessing.get_context("spawn")
    arguments = (tmp_path / ".cache" / "set", files, tmp_path / "log", tmp_path / "at_work")
    started = [spawn.Process(target=slow_build, args=arguments) for _ in range(2)]
    yield started
    for process in started:
        if process.pid is not None:
            process.kill()
            process.join()


def wait_for(path: Path) -> None:
    for _ in range(3000):
        if path.exists():
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} did not appear in 30 seconds")


def test_of_two_processes_one_builds_and_both_go_on(
    processes: list[BaseProcess], files: Files, tmp_path: Path
) -> None:
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "read\n"


def test_what_a_process_killed_in_its_work_began_is_completed(
    processes: list[BaseProcess], files: Files, tmp_path: Path
) -> None:
    processes[0].start()
    wait_for(tmp_path / "at_work")
    processes[0].kill()
    processes[0].join()
    assert list((tmp_path / ".cache").glob("set.partial-*"))
    _, parts = build(tmp_path / ".cache" / "set", files)
    np.testing.assert_array_equal(parts["train"].images, pixels_of(files))
    assert not list((tmp_path / ".cache").glob("set.partial-*"))


# Statistics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_statistics_are_those_of_the_pixels(channels: int) -> None:
    random = np.random.default_rng(0)
    images = random.normal(90, 60, (50, 9, 7, channels)).clip(0, 255).astype(np.uint8)
    images[..., 0] //= 2  # channels differ
    mean, std = cache.statistics(cache.histogram(images))
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), atol=5.1e-5)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), atol=5.1e-5)


# Decoding ---------------------------------------------------------------------------------------


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
    assert wanted == PixelFormat(6, 8, 1, presize=False)
    np.testing.assert_array_equal(decode(tmp_path / "a.png", wanted), grey)


def test_transparency_and_palettes_become_rgb(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(colour)
    image.putalpha(200)
    image.save(tmp_path / "alpha.jpg", format="PNG")  # not what its name says
    np.testing.assert_array_equal(decode(tmp_path / "alpha.jpg", SMALL), colour)
    palette = Image.fromarray(colour).quantize(64)
    palette.save(tmp_path / "palette.gif")
    assert decode(tmp_path / "palette.gif", SMALL).shape == (6, 8, 3)


def test_16_bit_grey_keeps_its_shades(tmp_path: Path) -> None:
    shades = np.arange(0, 65536, 65536 // 48, dtype=np.uint16)[:48].reshape(6, 8)
    Image.fromarray(shades).save(tmp_path / "a.png")
    wanted = probe([tmp_path / "a.png"], None)
    assert wanted.channels == 1
    assert np.abs(decode(tmp_path / "a.png", wanted)[..., 0] - shades / 256).max() <= 1


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
        decode(path, PixelFormat(40, 40, 3, presize=False))
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_bomb_is_refused_by_what_it_would_become(tmp_path: Path) -> None:
    bomb(tmp_path / "bomb.png")
    with pytest.raises(UserError, match="200000000 pixels"):
        probe([tmp_path / "bomb.png"], 64)


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
    for found in ("30x20.png is 30×20", "20x40.png 20×40"):
        assert found in str(error.value)


def test_a_stray_size_is_told_with_what_to_type(mixed: list[Path]) -> None:
    with pytest.raises(UserError, match=r"data\.presize=64") as error:
        decode(mixed[1], PixelFormat(20, 30, 3, presize=False))
    assert str(mixed[1]) in str(error.value)
    assert "20×40" in str(error.value)


def test_presize_cuts_the_middle_and_resizes_it(mixed: list[Path]) -> None:
    wanted = probe(mixed, 20)
    assert wanted == PixelFormat(20, 20, 3, presize=True)
    expected = np.zeros((20, 20, 3), np.uint8)
    expected[5:15, 5:15] = 255
    for path in mixed:  # cut to 20×20; no pixel is stretched
        np.testing.assert_array_equal(decode(path, wanted), expected)
    assert decode(mixed[0], probe(mixed, 10)).shape == (10, 10, 3)


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
    decoded = decode(path, PixelFormat(side, side, 1, presize=True))[..., 0].astype(int)
    difference = np.abs(decoded - np.asarray(whole))
    assert difference.mean() < 2
    assert difference.max() < 12


def test_a_large_photograph_is_turned_before_its_middle_is_cut(tmp_path: Path) -> None:
    upright, turned = tmp_path / "upright.jpg", tmp_path / "turned.jpg"
    photograph(upright)
    photograph(turned, orientation=6)  # by a quarter, clockwise
    wanted = PixelFormat(64, 64, 1, presize=True)
    expected = np.rot90(decode(upright, wanted), -1).astype(int)
    assert np.abs(decode(turned, wanted) - expected).max() <= 2


# Labels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [5, -1, -100])
def test_labels_out_of_range_are_named(files: Files, label: int) -> None:
    labels = np.where(np.arange(10) == 7, label, 0)
    with pytest.raises(UserError, match=rf"7\.png has the label {label}: expected 0 to 4"):
        cache.check_labels(Files(files.paths, labels), 5, "train")
    images = np.zeros((10, 2, 2, 1), np.uint8)
    with pytest.raises(UserError, match=f"row 7 of the train images has the label {label}"):
        cache.check_labels(Arrays(images, labels), 5, "train")


def test_missing_labels_are_counted() -> None:
    with pytest.raises(UserError, match="10 train images but 9 labels"):
        cache.check_labels(Arrays(np.zeros((10, 2, 2, 1), np.uint8), np.zeros(9, int)), 5, "train")
