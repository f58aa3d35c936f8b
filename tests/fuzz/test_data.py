"""Tables, image bytes and archives with anything in them: read, or one error for users; nothing outside."""

import gzip
import io
import os
import tarfile
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fuzzing import examples
from glimpse.data.decode import PixelFormat, decode
from glimpse.data.download import unpack
from glimpse.data.sets.csv_table import CsvTable
from glimpse.data.spec import Arrays, check_source
from glimpse.errors import UserError

# Tables -------------------------------------------------------------------------------------------

cells = st.one_of(
    st.integers(-2, 300).map(str),
    st.floats().map(str),
    st.text(max_size=5),
    st.sampled_from(
        ["1_0", "٣", "１", '"', '""', '"a', "9" * 100_000, "0x1", "1e38", "+1", " 1 ", "nan", "-1", "-100",
         "1.0", "\x00", "\ufeff", "\x1b[2J", "../../etc/passwd", "a.png", "/dev/zero", "1,5", "∞"]
    ),
)  # fmt: skip


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()) and draw(st.booleans()):
        return draw(st.binary(max_size=200))
    width = draw(st.integers(1, 6))
    names = ("label", "path", "pixel0", "pixel1", "pixel2", "pixel3")
    header = list(names[:1] + names[2 : 1 + width]) if draw(st.booleans()) else list(names[:width])
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=8))
    good = [[str(n % 2), *[str(n)] * (len(header) - 1)] for n in range(draw(st.integers(0, 20)))]
    delimiter = draw(st.sampled_from(",;\t|"))
    lines = [delimiter.join(row) for row in [header, *good, *rows]]
    text = draw(st.sampled_from(("\n", "\r\n", "\r"))).join(lines)
    encoding = draw(st.sampled_from(("utf-8", "utf-8-sig", "utf-16", "latin-1")))
    return text.encode(encoding, "surrogatepass" if encoding == "utf-8" else "replace")


@examples(60)
@given(content=tables())
def test_a_table_is_read_or_its_fault_is_named(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "t.csv")
        file.write_bytes(content)
        data = CsvTable(train=str(file), data_dir=folder, seed=0, batch_size=2, val_fraction=0.2)
        try:
            list(data.source_files())
            source = data.read()
            check_source(source)
        except UserError as error:
            assert len(str(error)) < 1200
            assert "\n" not in str(error).replace(folder, "")
            return
        assert len(source.class_names) >= 2
        if isinstance(source.train, Arrays):
            assert source.train.images.dtype == np.uint8


# Images -------------------------------------------------------------------------------------------


def image_bytes(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


IMAGES = {kind: image_bytes(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")}


@examples(100)
@given(kind=st.sampled_from(sorted(IMAGES)), data=st.data())
def test_an_image_is_decoded_or_named(kind: str, data: st.DataObject) -> None:
    content = bytearray(IMAGES[kind])
    for _ in range(data.draw(st.integers(0, 6))):
        place = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 60))
        content[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.png")
        path.write_bytes(content[:end])
        try:
            found = decode(path, PixelFormat(8, 8, 3, data.draw(st.sampled_from(("crop", None)))))
        except UserError as error:
            assert "x.png" in str(error)
        else:
            assert found.shape == (8, 8, 3)


# Archives -----------------------------------------------------------------------------------------

names = st.one_of(
    st.sampled_from(
        ["a", "ds/a.png", "ds/b.png", "../victim", "../../victim", "/tmp/victim", "ds/../../victim", "ds/l/x",
         "C:\\victim", "..\\victim", "a\x00b", "", ".", "./", "x" * 300, "d/" * 600 + "x", "\udce9.png"]
    ),
    st.text(max_size=8),
)  # fmt: skip
kinds = st.sampled_from(
    [tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE,
     tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE, b"9"]
)  # fmt: skip
entries = st.lists(st.tuples(names, kinds | st.just(tarfile.REGTYPE), names), max_size=5)


def as_tar(listed: list[tuple[str, bytes, str]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, link in listed:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            member.size = 3 if kind == tarfile.REGTYPE else 0
            try:
                tar.addfile(member, io.BytesIO(b"new"))
            except (ValueError, UnicodeError):  # no tar can hold this name
                continue
    return file.getvalue()


def as_zip(listed: list[tuple[str, bytes, str]]) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as zipped:
        warnings.simplefilter("ignore")  # about a name that comes twice
        for name, kind, link in listed:
            member = zipfile.ZipInfo("x")
            member.filename = name
            mode = {tarfile.SYMTYPE: 0o120777, tarfile.FIFOTYPE: 0o010644}.get(kind, 0o100644)
            member.external_attr = mode << 16
            try:
                zipped.writestr(member, link.encode("utf-8", "replace") or b"new")
            except (ValueError, UnicodeError):
                continue
    return file.getvalue()


@examples(60)
@given(listed=entries, data=st.data())
def test_an_archive_writes_nothing_outside(
    listed: list[tuple[str, bytes, str]], data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from((as_tar, as_zip)))(listed))
    if content and data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    packed = gzip.compress(bytes(content)) if data.draw(st.booleans()) else bytes(content)
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "outer", "unpack_here")
        root.mkdir(parents=True)
        archive = Path(place, "x.archive")
        archive.write_bytes(packed)
        victims = [Path(place, "victim"), root.parent / "victim"]
        for victim in victims:
            victim.write_text("precious")
        try:
            unpack(archive, root)
        except UserError:
            assert [path.name for path in root.iterdir() if not path.name.endswith(".lock")] == []
        assert [victim.read_text() for victim in victims] == ["precious"] * 2
        assert sorted(os.listdir(place)) == ["outer", "victim", "x.archive"]
        assert sorted(os.listdir(root.parent)) == ["unpack_here", "victim"]
        assert not any(path.is_symlink() for path in root.rglob("*"))
        assert all(path.is_file() or path.is_dir() for path in root.rglob("*"))
    assert not os.path.exists("/tmp/victim")
