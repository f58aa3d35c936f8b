"""Anything as overrides: composed, or one line that says what is wrong; nothing runs, nothing is written."""

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fuzzing import examples
from glimpse.config.compose import composed
from glimpse.config.explain import explain, is_foreseen
from glimpse.config.trust import recorded_overrides
from glimpse.errors import UserError

keys = st.sampled_from(
    ["data", "model", "optimizer", "optimizer.lr", "trainer.max_epochs", "augment", "callbacks", "logger",
     "packages", "monitor", "metrics", "seed", "name", "output_dir", "data.classes", "data.presize", "resume",
     "model.widths", "model._target_", "+data.x", "++seed", "~seed", "hydra.run.dir", "task", "experiment",
     "+hydra.callbacks.x._target_", "hydra/launcher", "data.val_fraction", "trainer.precision"]
)  # fmt: skip
values = st.one_of(
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ["[", "[1,2", "{a:1}", "{", "null", "''", '"', "${oc.env:HOME}", "${", "${seed}", "\\", "[[[[1]]]]",
         "os.system", "1e400", "9" * 5000, "-1", "nan", "mlp", "linear,mlp", "[flip,cutmix]", "[" * 300,
         "subprocess.Popen", "../../etc", "a=b", "x[/red]y", "\x1b[2J", "\udce9", "digits", "synthetic"]
    ),
)  # fmt: skip
overrides = st.one_of(
    st.tuples(keys | st.text(max_size=6), values).map("=".join), st.text(max_size=10), keys
)


@examples(12)
@given(typed=st.lists(overrides, min_size=1, max_size=3))
def test_overrides_are_composed_or_explained(typed: list[str]) -> None:
    before = sorted(os.listdir())
    try:
        composed(typed)
    except Exception as error:
        assert is_foreseen(error), (typed, error)
        line = explain(error, typed)
        assert line.isprintable()
    assert sorted(os.listdir()) == before


@examples(60)
@given(lines=st.lists(overrides, max_size=4))
def test_recorded_overrides_are_values_of_our_keys_or_refused(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as place:
        record = Path(place, ".hydra", "overrides.yaml")
        record.parent.mkdir()
        quoted = ["- " + "".join(f"\\U{ord(c):08x}" for c in line).join('""') for line in lines]
        record.write_text("\n".join(quoted) or "[]")
        try:
            kept = recorded_overrides(Path(place))
        except UserError as error:
            assert str(record) in str(error) or place in str(error)
        else:
            assert not [line for line in kept if line.lstrip("+~").startswith("hydra")]
