"""Paths are taken as they are typed."""

from pathlib import Path

import pytest
from hydra import compose
from hydra.errors import OverrideParseException

from glimpse.config.explain import explain
from glimpse.config.quoting import quote_texts, quoted, unquoted
from glimpse.config.schema import PATHS
from glimpse.errors import UserError

NAMES = (
    "My Photos (2024)", "a=b", "it's", 'say "x"', "[x]", "{x}", "2024", "1e3", "true", "a,b", "a:b", "back\\slash",
    "ends\\", "100%", "x[/red]y", "Café & 猫", "~x", "#1", "a;b", "-x", "./a b", "$HOME", "a\\'b",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["data.root", "data_dir"])
def test_a_path_is_what_is_typed(name: str, key: str) -> None:
    config = compose("train", overrides=["data=image_folder", *quote_texts([f"{key}={name}"])])
    assert (config.data.root if key == "data.root" else config.data_dir) == name


@pytest.mark.parametrize("value", ["", "''", '""', " "])
@pytest.mark.parametrize("key", PATHS)
def test_an_empty_path_is_refused(key: str, value: str) -> None:
    """A variable of the shell that is not set; it would mean another folder."""
    with pytest.raises(UserError, match=f"{key}= is empty, expected a (run )?(folder|path): "):
        quote_texts([f"{key}={value}"])


def test_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert quote_texts(["data.root=~/photos", "output_dir=~"]) == [
        "data.root='/home/me/photos'",
        "output_dir='/home/me'",
    ]


@pytest.mark.parametrize(
    "override",
    ["data.root='a b'", "data.root=${data_dir}/x", "resume=null", "seed=1,2", "data=csv", "-m"],
)
def test_what_is_more_than_text_stays(override: str) -> None:
    assert quote_texts([override]) == [override]


def test_a_sweep_over_paths_stays_a_sweep() -> None:
    assert quote_texts(["data.root=a,b"], is_sweep=True) == ["data.root=a,b"]
    assert quote_texts(["data.root=a (1)"], is_sweep=True) == ["data.root='a (1)'"]
    assert quote_texts(["data.root=é,ö (1)"], is_sweep=True) == ["data.root='é','ö (1)'"]


def test_a_comma_in_the_name_of_a_folder_does_not_split_it(tmp_path: Path) -> None:
    folder = tmp_path / "é, ö"
    folder.mkdir()
    assert quote_texts([f"data.root={folder}"], is_sweep=True) == [f"data.root='{folder}'"]
    assert quote_texts(["output_dir=é, ö", "name=é, ö"], is_sweep=True) == [
        "output_dir='é, ö'",
        "name='é, ö'",
    ]


def test_other_text_that_hydra_cannot_read_is_told_what_to_type() -> None:
    override = "model.activation=My Net (2024)"
    with pytest.raises(OverrideParseException) as error:
        compose("train", overrides=[override])
    said = explain(error.value, [override])
    assert said.endswith("""type "model.activation='My Net (2024)'\"""")


def test_quotes_hold_anything(tmp_path: Path) -> None:
    assert quoted("a'b") == r"'a\'b'"
    for text in ("a'b", "${x}", 'say "b"', "plain/path", ""):
        assert unquoted(quoted(text)) == text
        assert unquoted(text) == text
