"""Checkpoints with anything in any place: `glimpse predict` answers, or says why not in one line."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fuzzing import examples
from glimpse.cli.main import app
from glimpse.saved import load_saved
from makers import save_image

leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6),
    st.sampled_from([10**400, "os.system", "torch.load", "${oc.env:HOME}", torch.ones(2), (1, 2)]),
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("_target_", "a", "path")) | st.integers(), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of keys to each value inside nested mappings."""
    if not isinstance(value, dict):
        return [path]
    inner = [place for key, one in value.items() for place in places(one, (*path, key))]
    return [path, *inner] if path else inner


@pytest.fixture(scope="module")
def saved(trained_run: Path) -> dict[str, Any]:
    return load_saved(trained_run / "checkpoints" / "best.ckpt")


@examples(30)
@given(data=st.data())
def test_changed_values(saved: dict[str, Any], data: st.DataObject) -> None:
    changed = copy.deepcopy(saved)
    kept = {key: changed[key] for key in ("glimpse", "state_dict", "epoch")}
    for _ in range(data.draw(st.integers(1, 3))):
        *keys, last = data.draw(st.sampled_from(places(kept)))
        owner: Any = kept
        for key in keys:
            owner = owner.get(key) if isinstance(owner, dict) else None
        if isinstance(owner, dict):
            owner[last] = data.draw(values)
    with tempfile.TemporaryDirectory() as folder:
        torch.save(kept, Path(folder, "x.ckpt"))
        answer(Path(folder))


@examples(20)
@given(data=st.data())
def test_changed_bytes(trained_run: Path, data: st.DataObject) -> None:
    content = bytearray((trained_run / "checkpoints" / "best.ckpt").read_bytes())
    end = data.draw(st.integers(0, len(content))) if data.draw(st.booleans()) else len(content)
    for _ in range(data.draw(st.integers(1, 4))):
        # More often in the last bytes, which hold the directory
        back = data.draw(st.integers(1, len(content)) | st.integers(1, 6000))
        content[-min(back, len(content))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.ckpt").write_bytes(content[:end])
        answer(Path(folder))


def answer(folder: Path) -> None:
    save_image(np.zeros((8, 8, 1), np.uint8), folder / "a.png")
    result = CliRunner().invoke(app, ["predict", str(folder / "x.ckpt"), str(folder / "a.png")])
    assert result.exit_code in (0, 1), result.exception
    if result.exit_code:
        [line] = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
        assert "full traceback" not in line, line
