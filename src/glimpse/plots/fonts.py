"""Find a font for a text: the one that matplotlib is configured to use, unless another has more of it.

Few fonts have the letters of all languages. If none that is installed has a letter, it is drawn as a
box, and this is said once.
"""

import sys
from functools import cache

from glimpse.streams import say

UNFIT = ("Last Resort", "Emoji")  # parts of names of fonts that draw boxes, or bitmaps of one size


def font_path(text: str, *, is_bold: bool = False) -> str:
    """The file of the font in which a text is drawn."""
    letters = frozenset() if text.isascii() else frozenset(text) - frozenset(" \n")
    return _best_path(letters, is_bold)


def font_families(text: str) -> list[str]:
    """The names of the fonts in which matplotlib looks for each letter of a text."""
    from matplotlib import rcParams
    from matplotlib.ft2font import FT2Font

    return [*rcParams["font.family"], FT2Font(font_path(text)).family_name]


@cache
def _best_path(letters: frozenset[str], is_bold: bool) -> str:
    from matplotlib.font_manager import FontProperties, findfont, fontManager

    usual = str(findfont(FontProperties(weight="bold" if is_bold else "normal")))
    if letters <= _letters_of(usual):
        return usual
    others = [
        font.fname
        for font in fontManager.ttflist
        if font.style == "normal" and not any(part in font.name for part in UNFIT)
    ]
    best = max((usual, *others), key=lambda path: len(letters & _letters_of(path)))
    if missing := letters - _letters_of(best):
        _say_missing(min(missing))
    return best


@cache
def _letters_of(path: str) -> frozenset[str]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(map(chr, FT2Font(path).get_charmap()))
    except (OSError, RuntimeError):  # such as a font that was removed
        return frozenset()


_said: set[str] = set()


def _say_missing(letter: str) -> None:
    if not _said:
        _said.add(letter)
        say(
            f"pictures show boxes in place of some letters, such as {letter}: install a font that has "
            "them, such as Noto Sans CJK for Chinese, Japanese and Korean",
            file=sys.stderr,
        )
