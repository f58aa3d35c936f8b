"""A checkpoint is whole, or found to be damaged, whichever byte of it is."""

import os
import random
from pathlib import Path

import pytest
import torch

from glimpse.checkpoint_file import AtomicCheckpointIO, is_intact
from glimpse.errors import UserError
from glimpse.saved import read_checkpoint

CONTENT = {
    "glimpse": {"config": {}},
    "state_dict": {f"layer.{number}": torch.arange(10.0) for number in range(30)},
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint(CONTENT, path)
    return path


def test_it_is_an_archive_that_torch_reads(checkpoint: Path) -> None:
    assert is_intact(checkpoint)
    for mapped in (False, True):
        found = torch.load(checkpoint, weights_only=True, mmap=mapped)
        assert torch.equal(found["state_dict"]["layer.3"], torch.arange(10.0))
    assert [path.name for path in checkpoint.parent.iterdir()] == ["last.ckpt"]


def test_every_flipped_byte_is_found(checkpoint: Path) -> None:
    """All of the last 6,000 bytes, where the archive's directory is, and some of the others."""
    content = checkpoint.read_bytes()
    end = range(len(content) - 6000, len(content))
    others = random.Random(0).sample(range(len(content) - 6000), 500)
    missed = []
    with checkpoint.open("r+b", buffering=0) as file:
        for place in (*end, *others):
            os.pwrite(file.fileno(), bytes([content[place] ^ 1 << place % 8]), place)
            if is_intact(checkpoint):
                missed.append(place)
            os.pwrite(file.fileno(), content[place : place + 1], place)
    assert missed == []
    assert is_intact(checkpoint)


def test_every_missing_end_is_found(checkpoint: Path) -> None:
    size = checkpoint.stat().st_size
    for kept in (*range(size - 1, size - 1500, -1), *range(size - 1500, 0, -97), 0):
        os.truncate(checkpoint, kept)
        assert not is_intact(checkpoint), kept


def test_something_behind_the_end_is_found(checkpoint: Path) -> None:
    with checkpoint.open("ab") as file:
        file.write(b"\0")
    assert not is_intact(checkpoint)


def test_one_of_an_earlier_version_is_read_and_no_damage_ends_in_a_traceback(
    trained_run: Path, tmp_path: Path
) -> None:
    path = tmp_path / "old.ckpt"
    saved = AtomicCheckpointIO().load_checkpoint(trained_run / "checkpoints" / "last.ckpt")
    torch.save(saved, path)
    state = read_checkpoint(path)["state_dict"]
    content = path.read_bytes()
    places = random.Random(0).sample(range(len(content) - 6000, len(content)), 300)
    with path.open("r+b", buffering=0) as file:
        for place in places:
            os.pwrite(file.fileno(), bytes([content[place] ^ 1 << place % 8]), place)
            try:
                found = read_checkpoint(path)
            except UserError:
                pass
            else:
                assert all(torch.equal(state[name], found["state_dict"][name]) for name in state)
            os.pwrite(file.fileno(), content[place : place + 1], place)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "not a checkpoint of"),
        ({"glimpse": Path("x")}, "contains more than plain data"),
    ],
)
def test_something_else_is_named(tmp_path: Path, content: dict[str, object], message: str) -> None:
    """Objects that are not plain data are refused, not built."""
    path = tmp_path / "other.ckpt"
    AtomicCheckpointIO().save_checkpoint(content, path)
    with pytest.raises(UserError, match=message) as error:
        read_checkpoint(path)
    assert str(path) in str(error.value)


def test_what_a_callback_keeps_must_be_plain(tmp_path: Path) -> None:
    plain = {"rows": [1, 2.5, None], "best": {"val/acc": torch.ones(2)}, "kind": torch.float32}
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint({"callbacks": {"Mine": plain}}, path)
    assert torch.load(path, weights_only=True)["callbacks"]["Mine"]["rows"] == [1, 2.5, None]
    with pytest.raises(UserError, match=r"state_dict\(\) of Mine contains more than plain data"):
        AtomicCheckpointIO().save_checkpoint({"callbacks": {"Mine": {"x": object()}}}, path)
    assert is_intact(path)  # the earlier one
