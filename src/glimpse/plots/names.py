"""Shorten names for pictures, so that different names stay different."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from glimpse.text import cut

NAME_CHARACTERS = 18
MOST_ROUNDS = 4  # each tells more of the names apart

Shorten = Callable[[str], str]  # cuts off the end of a text that does not fit
BY_LENGTH: Shorten = partial(cut, length=NAME_CHARACTERS)


def distinct(names: Iterable[str], shorten: Shorten = BY_LENGTH) -> dict[str, str]:
    """Shorten each of several names, so that names that differ look different.

    Usually, a name loses its end. If it then equals another one, it loses its middle instead. If it
    still does, it loses what lies between its start and the place where the two differ.
    """
    shown = {name: shorten(name) for name in names}
    for again in (_without_middle, *[_at_difference] * MOST_ROUNDS):
        for alike in _alike(shown):
            shown |= {name: again(name, alike, shorten) for name in alike}
    for alike in _alike(shown):
        shown |= {name: shorten(f"{number}: {name}") for number, name in enumerate(alike, 1)}
    return shown


def _alike(shown: dict[str, str]) -> list[list[str]]:
    """The names that cannot be told from one another, in groups."""
    groups = defaultdict(list)
    for name, text in shown.items():
        groups[text].append(name)
    return [group for group in groups.values() if len(group) > 1]


def _without_middle(name: str, alike: Sequence[str], shorten: Shorten) -> str:
    half = (len(shorten(name)) - 1) // 2
    return shorten(f"{name[:half]}…{name[-half:]}") if half > 0 else shorten(name)


def _at_difference(name: str, alike: Sequence[str], shorten: Shorten) -> str:
    start = name[: len(shorten(name)) // 3]
    differ = (
        place for place, letters in enumerate(zip(*alike, strict=False)) if len(set(letters)) > 1
    )
    return shorten(f"{start}…{name[next(differ, min(map(len, alike))) :]}")
