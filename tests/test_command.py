"""A command that is shown can be typed, and has no more quotes than it needs."""

import sys

import pytest

from glimpse.command import as_shown, command, in_shell, to_type
from glimpse.config.quoting import quote_texts


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("data_dir='/data/sets'", "data_dir=/data/sets"),
        ("data.root='/My Photos (2024)/a'", "data.root=/My Photos (2024)/a"),
        ("data.root='it\\'s/a'", "data.root='it\\'s/a'"),
        ("data.root='a,b/c'", "data.root='a,b/c'"),
        ("name='null'", "name='null'"),
        ("optimizer.lr=0.1", "optimizer.lr=0.1"),
    ],
)
def test_quotes_stay_only_where_they_are_needed(override: str, shown: str) -> None:
    assert as_shown(override) == shown
    assert quote_texts([shown]) == [override]


def test_words_for_a_shell_have_the_simplest_quotes() -> None:
    words = ("data.root=/My Photos (2024)", "metrics=[f1]", "it's", "it's $HOME")
    assert in_shell(*words) == """"data.root=/My Photos (2024)" 'metrics=[f1]' "it's" """ + (
        "'it'\"'\"'s $HOME'"
    )


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (["/bin/glimpse", "train", "seed=1"], "glimpse train resume=run"),
        (["/lib/glimpse/__main__.py", "report", "run"], "glimpse train resume=run"),
        (["/lib/pytest/__main__.py"], "python train.py resume=run"),
        (["train.py", "-cd", "my conf"], 'python train.py --config-dir "my conf" resume=run'),
    ],
)
def test_a_suggested_command_is_the_users_own_with_its_folders(
    line: list[str], shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", line)
    assert to_type("resume=run") == shown
    recorded = command()
    monkeypatch.setattr(sys, "argv", ["/bin/glimpse", "report"])
    assert to_type("resume=run", line=recorded) == shown
