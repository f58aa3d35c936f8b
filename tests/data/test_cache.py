"""Images are decoded once, whatever dies or fills up meanwhile, and mapped from then on."""

import errno
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from glimpse.data import cache, cache_index
from glimpse.data import processes as decoding
from glimpse.data.cache import Contents, load_or_build
from glimpse.data.decode import PixelFormat
from glimpse.data.pixel_statistics import histogram
from glimpse.data.spec import Arrays, Files, Source
from glimpse.errors import UserError
from makers import save_image

SMALL = PixelFormat(6, 8, 3)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Ten 6×8 colour images without loss, labelled 0 to 4 twice."""
    random = np.random.default_rng(0)
    paths = [tmp_path / "images" / f"{number}.png" for number in range(10)]
    for path in paths:
        save_image(random.integers(0, 256, (6, 8, 3), np.uint8), path)
    return Files(paths, np.arange(10) % 5)


def build(folder: Path, train: Files | Arrays, *, num_workers: int = 1) -> Contents:
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
    monkeypatch.setattr(decoding, "CHUNK", 4)
    contents = build(tmp_path / "cache", files, num_workers=num_workers)
    assert (contents.class_names, contents.format) == (tuple("abcde"), SMALL)
    parts = contents.parts
    assert list(parts) == ["train"]
    np.testing.assert_array_equal(parts["train"].images, pixels_of(files))
    np.testing.assert_array_equal(parts["train"].labels, files.labels)
    counts = histogram(pixels_of(files))
    np.testing.assert_array_equal(parts["train"].histogram, counts)


def test_arrays_are_stored_as_they_are(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 1), np.uint8)
    parts = build(tmp_path / "cache", Arrays(images, np.arange(7) % 5)).parts
    np.testing.assert_array_equal(parts["train"].images, images)


def test_every_part_is_stored(files: Files, tmp_path: Path) -> None:
    heldout = Files(files.paths[:4], files.labels[:4])
    test = Files(files.paths[4:6], files.labels[4:6])
    source = Source(tuple("abcde"), files, heldout, test)
    for read in (lambda: source, never):  # made, then mapped
        found = load_or_build(tmp_path / "cache", read, lambda _: SMALL, num_workers=1)
        assert {name: len(part.labels) for name, part in found.parts.items()} == {
            "train": 10,
            "heldout": 4,
            "test": 2,
        }


def test_a_second_start_reads_and_decodes_nothing(files: Files, tmp_path: Path) -> None:
    first = build(tmp_path / "cache", files).parts
    for path in files.paths:
        path.unlink()
    second = load_or_build(tmp_path / "cache", never, never, num_workers=1)  # type: ignore[arg-type]
    assert second.class_names == tuple("abcde")
    np.testing.assert_array_equal(first["train"].images, second.parts["train"].images)


def test_images_are_mapped_and_cannot_be_spoilt(files: Files, tmp_path: Path) -> None:
    parts = build(tmp_path / "cache", files).parts
    images = parts["train"].images
    assert isinstance(images, np.memmap)
    images[:] = 0
    again = build(tmp_path / "cache", files).parts
    np.testing.assert_array_equal(again["train"].images, pixels_of(files))


def test_what_a_killed_process_left_is_removed(files: Files, tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "set-0123"
    leftover = folder.with_name("set-0123.partial-99999")
    leftover.mkdir(parents=True)
    (leftover / "train.npy").write_bytes(b"half")
    folder.with_name("set-0123.lock").touch()
    parts = build(folder, files).parts
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
    parts = build(folder, files).parts
    np.testing.assert_array_equal(parts["train"].images, pixels_of(files))


def test_images_that_exceed_the_memory_are_mapped_too(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linux refuses a private map that is larger than the memory."""
    load = np.load

    def refusing(file: Path, mmap_mode: str | None = None) -> object:
        if mmap_mode == "c":
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return load(file, mmap_mode=mmap_mode)  # type: ignore[call-overload]

    monkeypatch.setattr(np, "load", refusing)
    images = build(tmp_path / "cache", files).parts["train"].images
    assert torch.equal(torch.from_numpy(images), torch.from_numpy(pixels_of(files)))


def test_a_full_disk_is_found_out_where_it_cannot_be_reserved(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    monkeypatch.setattr(cache, "decode", never)
    with pytest.raises(UserError, match=r"No space left on device; type data\.cache=false"):
        build(tmp_path / "cache", files)


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
    monkeypatch.setattr(decoding, "CHUNK", 4)
    files.paths[6].write_bytes(b"")
    with pytest.raises(UserError, match=r"6\.png") as error:
        build(tmp_path / "cache", files, num_workers=2)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("num_workers", [1, 2])
def test_unreadable_files_are_left_out_where_asked(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    monkeypatch.setattr(decoding, "CHUNK", 3)
    pixels = np.delete(pixels_of(files), [3, 4, 5, 7], axis=0)
    for row in (3, 4, 5, 7):
        files.paths[row].write_text("<!DOCTYPE html>")
    source = Source(tuple("abcde"), files, heldout=Files(files.paths[:2], files.labels[:2]))
    folder = tmp_path / "cache"
    for read in (lambda: source, never):
        found = load_or_build(
            folder, read, lambda _: SMALL, num_workers=num_workers, skip_unreadable=True
        )
        parts = found.parts
        np.testing.assert_array_equal(parts["train"].images, pixels)
        assert parts["train"].labels.tolist() == [0, 1, 2, 1, 3, 4]
        np.testing.assert_array_equal(parts["train"].histogram, histogram(pixels))
        assert len(parts["heldout"].images) == 2
    assert found.num_skipped == 4
    lines = (folder / cache.UNREADABLE).read_text().splitlines()
    assert [line.split()[0] for line in lines] == [str(files.paths[row]) for row in (3, 4, 5, 7)]


def test_a_class_with_no_training_image_left_is_noted(files: Files, tmp_path: Path) -> None:
    for row in (3, 8):  # both of them
        files.paths[row].write_text("<!DOCTYPE html>")
    contents = load_or_build(
        tmp_path / "cache",
        lambda: Source(tuple("abcde"), files, heldout=Files(files.paths[3:4], files.labels[3:4])),
        lambda _: SMALL,
        num_workers=1,
        skip_unreadable=True,
    )
    assert contents.lost == (3,)
    assert [len(part.labels) for part in contents.parts.values()] == [8, 0]


def test_other_images_of_the_same_names_sizes_and_times_are_other_data(tmp_path: Path) -> None:
    keys = []
    for number in range(2):
        path = tmp_path / str(number) / "a.bmp"
        path.parent.mkdir()
        save_image(np.full((4, 4, 3), 100 * number, np.uint8), path)
        os.utime(path, (1, 1))
        keys.append(cache.fingerprint(path.parent, [path]))
    assert keys[0] != keys[1]


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


# Damage -----------------------------------------------------------------------------------------

NAMES = ("train.npy", "train-labels.npy", "train-histogram.npy", "index.json")


def halved(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """One byte in the middle; the modification time is set back."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def begun(path: Path) -> None:
    path.write_text('{"')


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", [halved, emptied, flipped, begun, deep, a_folder, Path.unlink])
def test_a_damaged_cache_is_built_anew_and_that_is_said(
    files: Files,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    damage: Callable[[Path], None],
) -> None:
    monkeypatch.setattr(
        cache_index, "SMALL", 500
    )  # the images are read only if their stamp differs
    before = build(tmp_path / "cache", files)
    capsys.readouterr()
    damage(tmp_path / "cache" / name)
    after = build(tmp_path / "cache", files)
    assert f"the cache {tmp_path / 'cache'} is damaged ({name}" in capsys.readouterr().out
    np.testing.assert_array_equal(after.parts["train"].images, pixels_of(files))
    np.testing.assert_array_equal(after.parts["train"].labels, files.labels)
    assert after.identity == before.identity
    load_or_build(tmp_path / "cache", never, never, num_workers=1)  # type: ignore[arg-type]


def replaced_by_a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def replaced_by_a_link(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.symlink_to(folder.parent / "nowhere")


def replaced_by_a_link_to_other_files(folder: Path) -> None:
    shutil.rmtree(folder)
    precious = folder.parent / "precious"
    precious.mkdir()
    (precious / "train.npy").write_text("precious")
    folder.symlink_to(precious)


@pytest.mark.parametrize(
    "damage", [replaced_by_a_file, replaced_by_a_link, replaced_by_a_link_to_other_files]
)
def test_what_stands_in_a_caches_place_is_replaced_and_no_link_followed(
    files: Files, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / ".cache" / "set"
    build(folder, files)
    damage(folder)
    after = build(folder, files)
    np.testing.assert_array_equal(after.parts["train"].images, pixels_of(files))
    for file in tmp_path.glob(".cache/precious/*"):
        assert file.read_text() == "precious"


def test_a_copy_of_a_cache_is_read_once_and_then_trusted(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_index, "SMALL", 0)
    build(tmp_path / "cache", files)
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    read: list[str] = []
    crc32 = cache_index._crc32
    monkeypatch.setattr(cache_index, "_crc32", lambda path: read.append(path.name) or crc32(path))
    for expected in (NAMES[:3], ()):
        read.clear()
        load_or_build(tmp_path / "copy", never, never, num_workers=1)  # type: ignore[arg-type]
        assert sorted(read) == sorted(expected)
    cache.verify(tmp_path / "copy")
    assert len(read) == 3


def test_bits_that_flip_without_a_write_are_found_when_every_byte_is_read(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "cache", files)
    flipped(tmp_path / "cache" / "train.npy")
    monkeypatch.setattr(cache_index, "SMALL", 0)
    stamps = {
        (tmp_path / "cache" / name).stat().st_ino: entry["stamp"]
        for name, entry in cache_index._load(tmp_path / "cache")["files"].items()
    }
    monkeypatch.setattr(cache_index, "_stamp", lambda status: stamps[status.st_ino])
    with pytest.raises(UserError, match=r"train\.npy does not match its checksum"):
        cache.verify(tmp_path / "cache")


@pytest.mark.parametrize("place", [".cache", ".cache/set.lock"])
def test_a_place_where_no_cache_can_be_written_is_named(
    files: Files, tmp_path: Path, place: str
) -> None:
    if place == ".cache":
        (tmp_path / place).write_text("")
    else:
        (tmp_path / place).mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot write the cache .*\.cache/set: "):
        build(tmp_path / ".cache" / "set", files)


# Two processes ----------------------------------------------------------------------------------


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
    parts = build(tmp_path / ".cache" / "set", files).parts
    np.testing.assert_array_equal(parts["train"].images, pixels_of(files))
    assert not list((tmp_path / ".cache").glob("set.partial-*"))
