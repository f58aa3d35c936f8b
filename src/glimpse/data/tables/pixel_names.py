"""The order of the pixels in a table, from the names of their columns."""

import re
from collections import Counter

# Names of pixels, the number of different names apart from the numbers, and the two groups by which
# the pixels are ordered.
SCHEMES = (
    (r"\D*(?P<first>\d+)\D+(?P<second>\d+)", 1),  # 3x10: row, then column
    (r"(?P<second>r|g|b|red|green|blue)[ _-]?(?P<first>\d+)", 3),  # R10: pixel, then channel
    (r"\D*(?P<first>\d+)(?P<second>)", 1),  # pixel10
)


def of_one_kind(names: list[str]) -> tuple[list[str], list[str]]:
    """Return the columns whose names differ only in their numbers, if nearly all do, and the rest."""
    kinds = Counter(map(_without_numbers, names))
    kind, number = kinds.most_common(1)[0] if kinds else ("", 0)
    if number < 0.9 * len(names):
        return names, []
    same = [name for name in names if _without_numbers(name) == kind]
    return same, [name for name in names if _without_numbers(name) != kind]


def by_number(names: list[str]) -> list[str]:
    """Return columns such as pixel0, pixel1, pixel10, pixel2 in the order of their numbers.

    Names such as 1x1, 1x2, 2x1 are in the order of rows and columns, and R0, R1, G0, G1, B0, B1 in
    that of pixels, whose channels are adjacent. Columns whose numbers are not consecutive, or whose
    names differ otherwise, stay as they are.
    """
    for pattern, num_kinds in SCHEMES:
        found = [match for name in names if (match := re.fullmatch(pattern, name.lower()))]
        if (
            not found
            or len(found) < len(names)
            or len(set(map(_without_numbers, names))) != num_kinds
        ):
            continue
        places = {_place(match): name for match, name in zip(found, names, strict=True)}
        firsts, seconds = ({place[axis] for place in places} for axis in (0, 1))
        is_full = len(places) == len(names) == len(firsts) * len(seconds)
        if is_full and max(firsts) - min(firsts) == len(firsts) - 1:
            return [places[place] for place in sorted(places)]
    return names


def _without_numbers(name: str) -> str:
    return re.sub(r"\d+", "", name)


def _place(match: re.Match[str]) -> tuple[int, int]:
    second = match["second"]
    return int(match["first"]), int(second) if second.isdigit() else "rgb".find(second[:1])
