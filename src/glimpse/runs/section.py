"""A section of a report: sentences and pictures."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Section:
    """A section of the report over several runs.

    Attributes:
        title: Its heading on the page.
        told: Sentences.
        pictures: PNGs, the most important first.
    """

    title: str
    told: list[str]
    pictures: list[Path] = field(default_factory=list)
