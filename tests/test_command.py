"""A command that is shown can be typed, and has no more quotes than it needs."""

import pytest

from glimpse.command import as_shown, in_shell
from glimpse.config.quoting import as_typed


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
    assert as_typed([shown]) == [override]


def test_words_for_a_shell_have_the_simplest_quotes() -> None:
    words = ("data.root=/My Photos (2024)", "metrics=[f1]", "it's", "it's $HOME")
    assert in_shell(*words) == """"data.root=/My Photos (2024)" 'metrics=[f1]' "it's" """ + (
        "'it'\"'\"'s $HOME'"
    )
