"""Class names from labels in any common notation.

A label is text and stays as written: "001" is not "1". The classes are the labels that occur, in
numerical order if all are numbers, otherwise in alphabetical order. Labels that are out of place (a
missing value among words, a word among numbers, -1, one far number among small ones, several labels
in one) are rejected, because a class made from them would go unnoticed. The error names their
place.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median

from glimpse.data.tables.table import NUMBER, shown
from glimpse.errors import UserError

NO_LABEL = (  # never the name of a class: of NumPy, pandas, MySQL and Excel
    "nan", "-nan", "<na>", "#na", "#n/a", "#n/a n/a", "n/a", "nat", r"\n", "1.#ind", "-1.#ind", "1.#qnan",
    "-1.#qnan", "#ref!", "#value!", "#name?", "#div/0!", "#null!", "#num!",
)  # fmt: skip
DOUBTFUL = ("none", "null", "na", "?", "-")  # perhaps the name of a class
MISSING = (*NO_LABEL, *DOUBTFUL, "", "inf", "-inf")  # among numbers
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
UNSEEN = ("Cf", "Pi", "Pf")  # Unicode's categories of invisible characters and quotes
SEPARATORS = "|;,/+&"  # of several labels in one
LARGEST = 2**53  # floats hold whole numbers exactly up to here
RARE = 0.05  # of all labels: the share below which labels of another kind are a mistake


def class_names_of(labels: Sequence[str], where: Callable[[int], str]) -> tuple[str, ...]:
    """Return the names of the classes that occur.

    Args:
        labels: The label of each image, without spaces around it.
        where: Returns a description of a label's place, given its position.

    Raises:
        UserError: a label is out of place; the message names its place.
    """
    counts = Counter(labels)
    is_decimal = all(DECIMAL_COMMA.fullmatch(text) for text in counts)  # as in "0,5"
    plain = {text: text.replace(",", ".") if is_decimal else text for text in counts}
    numbers = {text: float(plain[text]) for text in counts if NUMBER.fullmatch(plain[text])}
    all_labels = _Labels(counts, numbers)
    for text in counts:
        reason = next(_reasons(text, all_labels), None)
        if reason is not None:
            place = where(labels.index(text))
            raise UserError(f"{place}: the label {shown(text)} {reason}: correct it")
    if len(numbers) == len(counts):
        return tuple(sorted(counts, key=lambda text: (numbers[text], text)))
    return tuple(sorted(counts))


def may_be_missing(name: str) -> bool:
    """Whether the name of a class is one that people also write for a missing label."""
    return name.lower() in DOUBTFUL


def alike(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of names that differ only in their spelling.

    That is in case, in the form of letters, in quotes or invisible characters, or in what separates
    the words: spaces, hyphens or underscores.
    """
    found: dict[str, str] = {}
    pairs = []
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        kept = [c for c in plain if unicodedata.category(c) not in UNSEEN and c not in "'\"`"]
        plain = re.sub(r"(?<=\w)[\s_-]+(?=\w)|\s", "", "".join(kept))
        if plain in found:
            pairs.append((found[plain], name))
        found.setdefault(plain, name)
    return pairs


def distinct(names: Sequence[str], marks: Iterable[object]) -> tuple[str, ...]:
    """Return names; those that several classes share are followed by the mark of each class."""
    times = Counter(names)
    return tuple(
        name if times[name] == 1 else f"{name} ({mark})"
        for name, mark in zip(names, marks, strict=True)
    )


class _Labels:
    """All labels, and what a label is compared with, computed once for many classes.

    Args:
        counts: The number of images with each label.
        numbers: The values of the labels that look like numbers.
    """

    def __init__(self, counts: Counter[str], numbers: Mapping[str, float]) -> None:
        self.counts = counts
        self.numbers = numbers
        self.total = counts.total()
        self.num_numeric = sum(counts[number] for number in numbers)
        self.num_fractions = sum(counts[text] for text, number in numbers.items() if number % 1)
        self.ends = {min(numbers.values()), max(numbers.values())} if numbers else set()
        self.same: dict[float, list[str]] = {}  # the labels of each number, in the order of all
        for text, number in numbers.items():
            self.same.setdefault(number, []).append(text)
        self.num_with = {  # for each separator, the number of labels with each part
            separator: Counter(
                part
                for text in counts
                if separator in text
                for part in set(_split(text, separator))
            )
            for separator in SEPARATORS
        }


def _reasons(text: str, labels: _Labels) -> Iterator[str]:
    """Yield the reasons why a label is out of place among all labels."""
    counts, numbers, total = labels.counts, labels.numbers, labels.total
    parts = [] if text in numbers else _parts(text, labels)
    if _is_list(text) and len(parts) == 1:
        yield "is a list, where one class is expected"
    elif parts:
        yield (
            f"names several classes ({', '.join(parts[:3])}), where one is expected; if it is one class, type "
            "data.class_names=[…] with every label"
        )
    are_numbers = 2 * labels.num_numeric > total
    if text.lower() in NO_LABEL or (are_numbers and text.lower() in MISSING):
        yield "stands for a missing value"
    value = numbers.get(text)
    if value is None:
        num_words = total - labels.num_numeric
        if are_numbers and (num_words == 1 or num_words < RARE * total):
            yield "is not a number, unlike the other labels"
    else:
        if not abs(value) < LARGEST:
            yield "is too large for a label"
        if value < 0 and set(numbers.values()) != {-1, 1}:
            yield "is negative, which often stands for no label"
        fractions = labels.num_fractions
        if value % 1 and (fractions == 1 or fractions < RARE * total):
            yield "is not a whole number, unlike the other labels"
        twins = labels.same[value]
        same = [other for other in twins if counts[other] > counts[text]] or twins[:-1]
        same = [other for other in same if other != text]
        if same:
            yield f"is the same number as {shown(same[0])}, so that one class would become two"
        if are_numbers and value in labels.ends and _is_stray(text, counts, numbers):
            yield (
                "is far from the others and rare; if it is a class, type data.class_names=[…] with "
                "every label"
            )


def _is_stray(text: str, counts: Counter[str], numbers: Mapping[str, float]) -> bool:
    others = [other for other in numbers if other != text]
    if not others:
        return False
    usual = median(counts[other] for other in others)
    values = [numbers[other] for other in others]
    low, high = min(values) - len(others), max(values) + len(others)
    is_rare = usual > 1 and counts[text] <= max(1, usual / 10)
    return is_rare and not low <= numbers[text] <= high


def _parts(text: str, labels: _Labels) -> list[str]:
    """Return the labels that a label combines; an empty list if it is a single label."""
    if _is_list(text):
        return re.findall(r"[^\[\](){}'\",\s]+", text) or [text]
    for separator in SEPARATORS:
        if separator in text:
            parts = _split(text, separator)
            # A part that two labels have is in another one too.
            known = [p in labels.counts or labels.num_with[separator][p] > 1 for p in parts]
            if len(parts) > 1 and (all(known) or (separator in "|;" and any(known))):
                return parts
    parts = text.split()
    return parts if len(parts) > 1 and all(part in labels.counts for part in parts) else []


def _is_list(text: str) -> bool:
    return re.fullmatch(r"\[.*\]|\{.*\}|\(.*,.*\)", text) is not None


def _split(text: str, separator: str) -> list[str]:
    return [part.strip() for part in text.split(separator) if part.strip()]
