"""Which files are images, by their names: one rule for training, predict, data info and data check.

The ending of a name decides, in upper or lower case. Hidden files and folders (whose names begin
with a dot, or which Macs, Windows and network drives add) are skipped everywhere. Files in a format
that this installation cannot read are skipped too, but counted, so that a run can report them.
"""

import functools
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, features

from glimpse.text import plural, some

ENDINGS = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".mpo",
    ".pcx",
)  # fmt: skip
AVIF = (".avif", ".avifs")
HEIF = (".heic", ".heif", ".hif")
# Formats of pictures that are never read here.
OTHERS = (
    ".svg", ".psd", ".eps", ".jxl", ".jxr", ".exr", ".hdr", ".dcm", ".ico", ".icns", ".cur", ".dds", ".sgi",
    ".xpm", ".xbm", ".ras", ".wmf", ".emf", ".bpg", ".raw", ".dng", ".cr2", ".cr3", ".srw", ".pef",
    ".nef", ".arw", ".raf", ".orf", ".rw2",
    ".npy", ".npz", ".nii", ".fits", ".svs", ".ndpi", ".czi", ".mha", ".nrrd", ".mat", ".h5", ".hdf5",
    ".dicom", ".tfrecord", ".xcf", ".qoi",
    ".pdf", ".mp4", ".mov", ".avi", ".mkv", ".webm",
)  # fmt: skip
# They may contain images.
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".xz", ".bz2", ".zst", ".7z", ".rar")
# Of files that never hold an image, but often lie beside images; their content is not looked at.
OF_TEXT = (".txt", ".json", ".xml", ".csv", ".tsv", ".md", ".html", ".yaml", ".yml", ".py", ".log")
# In lower case: of macOS archives, Synology's and QNAP's thumbnails, Windows and Linux drives.
HIDDEN_FOLDERS = (
    "__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found",
)  # fmt: skip
# The first bytes of JPEG, PNG, GIF and TIFF files, to count those with another ending or none.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")
# Pillow's names of the formats that it loads by default. Loading the others takes 0.1 s.
USUAL_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "DIB")
# Pillow hands these to a program that executes them: EPS to Ghostscript, WMF to Windows.
PROGRAMS = ("EPS", "WMF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@functools.cache
def readable_endings() -> tuple[str, ...]:
    """Return the endings of the image files that can be read in this installation."""
    avif = AVIF if features.check("avif") else ()
    return (*ENDINGS, *avif, *(HEIF if can_read_heif() else ()))


@functools.cache
def unreadable_endings() -> tuple[str, ...]:
    """Return the endings of image files that cannot be read here."""
    return tuple(e for e in (*AVIF, *HEIF, *OTHERS, *ARCHIVES) if e not in readable_endings())


def other_formats() -> tuple[str, ...]:
    """Pillow's names of all other formats that it reads itself, for files with any name."""
    Image.init()
    return tuple(name for name in Image.ID if name not in (*USUAL_FORMATS, *PROGRAMS))


def can_read_heif() -> bool:
    """Whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


@functools.cache
def register_heif() -> None:
    """Teach Pillow to open HEIC files in this process."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def is_heif(path: Path) -> bool:
    """Whether a file's first bytes are those of HEIC, whatever its name."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS


def begins_as_image(path: str) -> bool:
    """Whether a regular file's first bytes are those of an image, whatever its name."""
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(12)
    except OSError:
        return False
    is_webp = start[:4] == b"RIFF" and start[8:] == b"WEBP"  # sounds are RIFF files too
    return is_webp or start.startswith(_BEGINNINGS)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is skipped."""
    return name.startswith(".") or name.lower() in HIDDEN_FOLDERS


def is_image(path: Path) -> bool:
    """Whether a file name is that of an image; the content is checked on decoding."""
    return path.name.lower().endswith(readable_endings()) and not is_hidden(path.name)


def counted(passed_over: Mapping[str, int]) -> list[str]:
    """Return one remark for each format of skipped files, given counts by ending.

    Images with endings of other kinds or without an ending share one remark.
    """
    remarks = []
    disguised = {e: n for e, n in passed_over.items() if e not in unreadable_endings()}
    for ending, number in sorted(passed_over.items()):
        if ending not in disguised:
            remedy = (
                "to read them, type pip install pillow-heif"
                if ending in HEIF
                else "unpack them if they hold images"
                if ending in ARCHIVES
                else "not readable here"
            )
            remarks.append(f"{plural(number, f'{ending} file')} skipped ({remedy})")
    if disguised:
        named = some(sorted(ending for ending in disguised if ending), 3)
        kinds = [f"with the ending {named}"] if named else []
        kinds += ["without an ending"] if "" in disguised else []
        remarks.append(
            f"{plural(sum(disguised.values()), 'image file')} {' or '.join(kinds)} skipped (rename them, for "
            "example to .jpg)"
        )
    return remarks
