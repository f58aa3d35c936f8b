"""The jobs of a sweep and the names of their folders."""

import random
import string
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from glimpse.errors import UserError
from glimpse.sweeps.jobs import MAX_BYTES, Grid, folder_name, grid, name_in, name_part, parsed


def grid_of(*lines: str) -> Grid:
    return grid(OverridesParser.create().parse_overrides(list(lines)), Path("nowhere"))


def test_a_job_for_each_combination_named_after_what_varies() -> None:
    jobs = grid_of("data=digits", "model=linear,mlp", "seed=1,2").jobs
    assert [job.name for job in jobs] == [
        f"model-{model}_seed-{seed}" for model in ("linear", "mlp") for seed in (1, 2)
    ]
    assert jobs[1].overrides == ("data=digits", "model=linear", "seed=2")
    assert [job.number for job in jobs] == [0, 1, 2, 3]


def test_one_value_and_none_are_sweeps_of_one_job() -> None:
    [job] = grid_of("seed=choice(3)", "model=mlp").jobs
    assert job.name == "seed-3"
    [job] = grid_of("model=mlp").jobs
    assert (job.name, job.overrides) == ("0", ("model=mlp",))


@pytest.mark.parametrize(
    "lines",
    [
        ("optimizer.lr=0.1,0.10",),
        ("optimizer.lr=1e-1,0.1",),
        ("optimizer.lr=1,1.0",),
        ("seed=3,3",),
        ("optimizer.lr=0.1,0.10,1e-1",),
        ("model=mlp,'mlp'",),
        ("model.widths=[1,2],[1, 2]",),
        ("seed=1,2", "optimizer.lr=5,5.0", "seed=7"),  # the last of a key counts
    ],
)
def test_equal_values_are_one_job_and_that_is_said(lines: tuple[str, ...]) -> None:
    made = grid_of(*lines)
    assert len(made.jobs) == 1
    [remark] = made.remarks
    assert "equal values make one job" in remark


DIFFERENT = [
    "1", "'1'", "-1", "true", "'true'", "null", "'null'", "[1]", "[1,2]", "[-1,2]", "[12]", "[]",
    "'a b'", "'a-b'", "'a/b'", "'a,b'", "a", "[a,b]", "[[1],2]", "{a:1}", "''", "'é'", "'-a'", "'='",
    "0.1", "0.11", "1e-20", "1e20", "inf", "' a'", "'a '", "a.b", "a_b", "'1-2'", "[a]",
]  # fmt: skip


def test_different_values_have_different_names_that_a_folder_can_have(tmp_path: Path) -> None:
    names = [folder_name([name_part("x", parsed(f"x={text}").value())]) for text in DIFFERENT]
    assert len(set(names)) == len(DIFFERENT)
    for name in names:
        (tmp_path / name).mkdir()
        assert set(name) <= set(string.ascii_letters + string.digits + "-_.+é")


def test_a_name_has_at_most_200_bytes_and_stays_distinct() -> None:
    rng = random.Random(0)
    texts = ["".join(rng.choices("äöü漢字abc", k=150)) for _ in range(50)]
    names = {folder_name([f"{text}-{number}"]) for text in texts for number in (1, 2)}
    assert len(names) == 100
    assert all(len(name.encode()) <= MAX_BYTES for name in names)
    assert folder_name(["a" * 200]) == "a" * 200


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("name=a,b", "one name"),
        ("output_dir=a,b", "one output_dir"),
        ("sweep.plan=true,false", "one sweep.plan"),
        ("resume=a,b", "one resume"),
        ("optimizer.lr=interval(0,1)", "hydra/sweeper=search"),
        ("seed=range(3,1)", "no value matches"),
        ("seed=range(0,3,0)", "a step other than 0"),
    ],
)
def test_what_cannot_be_swept_is_refused(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        grid_of(line)


def test_a_range_of_fractions_has_its_values_as_typed_and_ends_before_its_stop() -> None:
    jobs = grid_of("optimizer.lr=range(0.1,0.4,0.1)").jobs
    assert [job.name for job in jobs] == [f"optimizer.lr-{lr}" for lr in (0.1, 0.2, 0.3)]


@pytest.mark.parametrize("order", [("a-1", "b-2", "c-3"), ("c-3", "a-1", "b-2")])
def test_a_job_is_found_again_in_whatever_order_its_keys_are_typed(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    assert name_in(tmp_path, order) == "_".join(order)
    (tmp_path / "b-2_a-1_c-3").mkdir()
    assert name_in(tmp_path, order) == "b-2_a-1_c-3"
    (tmp_path / "_".join(order)).mkdir()  # the order as typed comes first
    assert name_in(tmp_path, order) == "_".join(order)
