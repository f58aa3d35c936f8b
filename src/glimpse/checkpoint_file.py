"""Write a checkpoint completely or not at all, with a checksum; read it without running code.

A checkpoint is the zip archive that `torch.save` writes. The archive's comment holds a CRC-32 of
all bytes before it. torch's own checksums cover the content of each record, but neither the
archive's directory nor the padding between records. Any program that reads torch's archives skips
the comment. A checkpoint of an earlier version has no comment, so only its records are checked.
"""

import io
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.pytorch.plugins.io import CheckpointIO

from glimpse.errors import UserError
from glimpse.files import make_folder, replacing

BLOCK = 2**20  # bytes read at a time
# The last record of a zip archive without a comment. Its last two bytes are the comment's length.
# PKWARE 2022, .ZIP File Format Specification 6.3.10, section 4.3.16.
END_SIGNATURE, END_SIZE = b"PK\x05\x06", 22
LENGTH_SIZE = 2
LABEL = b"glimpse crc32 "
COMMENT_SIZE = len(LABEL) + 8


class AtomicCheckpointIO(CheckpointIO):
    """Write to a temporary name in the same folder, then rename. Read without executing code."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        final = Path(path)
        for name, state in checkpoint.get("callbacks", {}).items():
            _require_plain(name, state)
        make_folder(final.parent)
        try:
            with replacing(final) as partial, partial.open("w+b") as file:
                torch.save(checkpoint, file)
                _seal(file)
        except RuntimeError as error:  # torch raises it when the disk is full
            raise UserError(f"cannot write {final}: {error}") from error

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Load plain data only, regardless of `weights_only`."""
        checkpoint = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        assert isinstance(checkpoint, dict)
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Remove a checkpoint; no other file, as the name may come from a stranger's checkpoint."""
        if Path(path).suffix == ".ckpt" and ".." not in Path(path).parts:
            Path(path).unlink(missing_ok=True)


def _require_plain(name: str, state: object) -> None:
    """Require the state of a callback to be plain data, so that the checkpoint can be read.

    Raises:
        UserError: the state contains something else.
    """
    if _is_plain(state):
        return
    try:
        torch.save(state, content := io.BytesIO())
        content.seek(0)
        torch.load(content, weights_only=True)
    except Exception as error:  # pickle raises many kinds
        raise UserError(
            f"callbacks: state_dict() of {name.partition('{')[0]} contains more than plain data, expected "
            "numbers, text, tensors, and lists and dicts of these"
        ) from error


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return type(value) in (str, int, float, bool, type(None), torch.Tensor)


def is_intact(path: Path) -> bool:
    """Whether a checkpoint is undamaged: no byte of it has changed, and none is missing."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - END_SIZE - COMMENT_SIZE))
            end = file.read()
            if end[-COMMENT_SIZE:].startswith(LABEL):
                return size > COMMENT_SIZE and end[-COMMENT_SIZE:] == _comment_of(file)
    except OSError:
        return False
    has_no_comment = end[-END_SIZE:].startswith(END_SIGNATURE) and end.endswith(bytes(LENGTH_SIZE))
    return has_no_comment and _has_intact_records(path)


def _seal(file: BinaryIO) -> None:
    """Add the comment to an archive that `torch.save` has just written."""
    file.seek(-END_SIZE, os.SEEK_END)
    end = file.read()
    assert end.startswith(END_SIGNATURE)
    assert end.endswith(bytes(LENGTH_SIZE))
    file.seek(-LENGTH_SIZE, os.SEEK_END)
    file.write(COMMENT_SIZE.to_bytes(LENGTH_SIZE, "little"))
    file.write(bytes(COMMENT_SIZE))
    comment = _comment_of(file)
    file.seek(-COMMENT_SIZE, os.SEEK_END)
    file.write(comment)


def _comment_of(file: BinaryIO) -> bytes:
    """Compute the comment of an archive that has room for it."""
    left = file.seek(-COMMENT_SIZE, os.SEEK_END)
    checksum = 0
    file.seek(0)
    while left:
        block = file.read(min(BLOCK, left))
        if not block:
            raise OSError("the file became shorter while it was read")
        checksum = zlib.crc32(block, checksum)
        left -= len(block)
    return LABEL + b"%08x" % checksum


def _has_intact_records(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as zipped:
            return zipped.testzip() is None
    except Exception:  # zipfile raises a dozen kinds of errors on a damaged directory
        return False
