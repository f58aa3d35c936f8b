"""What is written on pictures."""

from typing import Any

import pytest

from glimpse.plots.canvas import Canvas


@pytest.fixture(name="written")
def written_texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines of text that pictures get."""
    found: list[str] = []
    draw = Canvas.text

    def note(canvas: Canvas, x: float, y: float, text: str, **options: Any) -> None:
        found.append(text)
        draw(canvas, x, y, text, **options)

    monkeypatch.setattr(Canvas, "text", note)
    return found
