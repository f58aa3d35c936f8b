"""Run folders with anything in their files: `glimpse report` shows the others, and nobody waits."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from folders import write_run
from fuzzing import examples
from glimpse.cli.main import app

KEYS = (
    "status", "data", "model", "seed", "epochs", "best_epoch", "parameters", "seconds", "metrics",
    "images_per_second", "majority_acc", "class_recall", "error", "monitor", "mode", "val/acc",
    "test/acc", "train/acc", "val/loss", "command", "versions", "git", "commit", "dirty", "gpus", "host",
    "threads", "optimizer", "trainer", "max_epochs", "_target_", "hydra", "runtime", "choices", "jobs",
    "overrides", "state", "metric", "folds", "fold",
)  # fmt: skip
FILES = (
    "summary.json", "environment.json", ".hydra/config.yaml", ".hydra/overrides.yaml",
    ".hydra/hydra.yaml", "metrics.csv", "sweep.json",
)  # fmt: skip

numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 10**18, 1e308, -1e308, 5e-324, 2**64]),
)
texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["x[/red]y", "\x1b[2J", "<script>", "finished", "\ud800", "nan", "resume=x", "a=b"]
    ),
)
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=6)
    ),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(KEYS), values, max_size=12)


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_yaml(value: Any) -> bytes:
    return yaml.safe_dump(value).encode("utf-8", "surrogatepass")


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    header = draw(
        st.lists(st.sampled_from(("epoch", "val/acc", "train/acc", "val/loss")), max_size=5)
    )
    rows = draw(st.lists(st.lists(leaves, max_size=6), max_size=5))
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows)]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


DEEP = b"[" * 100_000
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"  %c: &%c [%s]\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in b"bcdefghijk"
).replace(b"  ", b"")
NESTED_BOMB = b"m:\n" + b"".join(b"  " + line + b"\n" for line in BOMB.splitlines())
MERGES = b"m:\n  a: &a {k: v}\n" + b"".join(
    b"  %c: &%c {<<: [%s]}\n" % (n, n, b",".join([b"*%c" % (n - 1)] * 9)) for n in b"bcdefghijk"
)
fixed = st.sampled_from(
    [
        b"", DEEP, b'{"a":' * 100_000, b"{a: " * 2_000, b"- " * 50_000, BOMB, NESTED_BOMB, MERGES,
        b"a: &a [*a]", b"m: {b: &a [*a]}", b"a: 0x" + b"f" * 200_000, b"a: " + b"9" * 10_000,
        b'{"status": "finished", "seed": ' + b"9" * 10_000 + b"}",
        b"? [a]\n: b", b"a: {? {b: c} : d}", b'a: !!int ""', b"a: !!timestamp x", b"a: !!bool x",
        b"!!python/object/apply:os.system [touch EXECUTED]", b"\xff\xfe\x00", b"\x00" * 100,
        b"epoch,val/acc\n" + b"1,2\n" * 1_000, b'epoch\n"' + b"x" * 300_000,
        b"epoch," * 10_000 + b"\n" + b"1," * 10_000, b"1e400,1e-400\n",
    ]
)  # fmt: skip
contents = st.one_of(
    objects.map(as_json), values.map(as_json), values.map(as_yaml), objects.map(as_yaml), tables(),
    fixed, st.binary(max_size=40),
)  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        other = {"optimizer": {"lr": 0.125}}  # or the runs would share a row
        yield write_run(Path(folder, "whole"), accuracy=0.8125, config=other, model="whole")


@examples(15)
@given(files=st.dictionaries(st.sampled_from(FILES), contents, min_size=1), seed=st.integers(0, 2))
def test_a_run_folder_hides_no_other(whole: Path, files: dict[str, bytes], seed: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "outputs")
        shutil.copytree(whole, root / "whole")
        bad = write_run(root / "bad", seed=seed)
        for name, content in files.items():
            where = root if name == "sweep.json" else bad
            (where / name).write_bytes(content)
        before = set(os.listdir(place))
        for arguments in (
            [str(root)],
            [str(root), "--format", "csv"],
            [str(root), "--format", "markdown"],
            [str(bad)],
        ):
            result = CliRunner().invoke(app, ["report", *arguments])
            assert result.exit_code == 0, (arguments, result.output[-2000:], result.exception)
            assert "\x1b" not in result.output
            if arguments[0] == str(root):
                assert "0.8125" in result.output
        for page in (root / "report.html", bad / "report.html"):
            page.read_text(encoding="utf-8")
        assert set(os.listdir(place)) == before
        assert not (bad / "EXECUTED").exists()
        assert not Path("EXECUTED").exists()
