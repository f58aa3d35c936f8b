"""What a search varies, read from overrides, and the values as they are typed."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from glimpse.errors import UserError
from glimpse.search.space import Choice, Interval, Space, split


def read(*lines: str) -> tuple[Space, list[str]]:
    return split(OverridesParser.create().parse_overrides(list(lines)))


@pytest.mark.parametrize(
    ("typed", "axis"),
    [
        ("tag(log,interval(1e-4,1))", Interval(1e-4, 1, is_log=True)),
        ("interval(-1,1)", Interval(-1, 1)),
        ("int(interval(1,8))", Interval(1, 8, is_whole=True)),
        ("tag(int,log,interval(1,512))", Interval(1, 512, is_whole=True, is_log=True)),
        ("range(1,8)", Interval(1, 7, step=1, is_whole=True)),
        ("range(8,0,-2)", Interval(2, 8, step=2, is_whole=True)),
        ("range(0,1,0.25)", Interval(0, 0.75, step=0.25)),
        ("range(3)", Interval(0, 2, step=1, is_whole=True)),
        ("tag(log,range(1,9))", Interval(1, 8, step=1, is_whole=True, is_log=True)),
        ("choice(linear,mlp)", Choice(("linear", "mlp"))),
        ("[8,8],[16]", Choice(("[8,8]", "[16]"))),
        ("0.1,0.10,null", Choice(("0.1", "null"))),
        ("'a b','c'", Choice(("'a b'", "'c'"))),
    ],
)
def test_an_axis_is_read_from_its_override(typed: str, axis: Choice | Interval) -> None:
    space, shared = read("model=mlp", f"model.x={typed}", "seed=3", "~callbacks.pictures")
    assert space == {"model.x": axis}
    assert shared == ["model=mlp", "seed=3", "~callbacks.pictures"]


def test_a_range_without_end_is_not_listed() -> None:
    space, _ = read("model.x=range(0,1000000000000)")
    assert space["model.x"].samples == ("0", "999999999999")


def test_the_last_override_of_a_key_counts() -> None:
    assert read("a=1,2", "b=1,2", "a=3") == ({"b": Choice(("1", "2"))}, ["a=3"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["model=mlp"], "nothing is searched"),
        (["seed=1,2"], "hydra.sweeper.seeds=3"),
        (["name=a,b"], "cannot vary name"),
        (["lr=interval(1,1e-4)"], "the lower one first"),
        (["lr=interval(1,1)"], "the lower one first"),
        (["lr=interval(0,inf)"], "finite"),
        (["lr=interval(0,nan)"], "finite"),
        (["lr=tag(log,interval(0,1))"], "above 0"),
        (["lr=tag(lgo,interval(1,2))"], "lgo is not a tag; expected log or int"),
        (["lr=tag(int,interval(0.5,2))"], "whole numbers"),
        (["lr=tag(log,choice(1,2))"], "not for a list"),
        (["lr=range(3,3)"], "empty"),
        (["lr=range(0,3,0)"], "a step other than 0"),
        (["lr=tag(log,range(1,9,2))"], "steps of 1"),
        (["lr=tag(int,range(0,1,0.5))"], "whole numbers"),
    ],
)
def test_an_impossible_space_is_one_line(lines: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read(*lines)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("axis", "value", "typed"),
    [
        (Interval(1e-4, 1, is_log=True), 0.0123456789, "0.01235"),
        (Interval(1e-8, 1, is_log=True), 1.23456e-7, "1.235e-07"),
        (Interval(0.9, 0.9999), 0.99876543, "0.99877"),
        (Interval(0.12354, 1), 0.123541, "0.12354"),
        (Interval(0, 0.98765432), 0.98765431, "0.98765432"),
        (Interval(1, 8, is_whole=True), 3, "3"),
        (Interval(0, 0.75, step=0.25), 0.30000000000000004, "0.3"),
        (Choice(("a", "[1,2]")), "[1,2]", "[1,2]"),
    ],
)
def test_a_value_is_typed_with_the_digits_that_matter(
    axis: Interval | Choice, value: float | str, typed: str
) -> None:
    assert axis.typed(value) == typed  # type: ignore[arg-type]
