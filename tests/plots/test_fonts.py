"""Texts in any language are drawn in a font that has their letters, if one is installed."""

from pathlib import Path

import pytest

from glimpse.plots import fonts
from glimpse.plots.fonts import font_families, font_path

RARE = "\u1d81"  # matplotlib brings it along in STIXGeneral, but not in its usual font
NOWHERE = "\ue123"  # for private use


def test_a_font_with_the_letters_is_taken() -> None:
    usual = font_path("cat")
    assert font_path("Müller → ✓ …") == usual
    assert "STIX" in font_path(f"a{RARE}")
    assert font_families(f"a{RARE}")[-1] == "STIXGeneral"
    assert font_path("cat", is_bold=True) != usual


def test_letters_that_no_font_has_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = font_path("cat")
    monkeypatch.setattr(fonts, "_letters_of", lambda _: frozenset("cat"))
    fonts._best_path.cache_clear()
    fonts._said.clear()
    for text in (f"cat {NOWHERE}", f"ca {NOWHERE}", "cat猫"):
        assert font_path(text) == usual
    assert capsys.readouterr().err.count("pictures show boxes") == 1
    fonts._best_path.cache_clear()


def test_a_font_that_cannot_be_read_has_no_letters(tmp_path: Path) -> None:
    (tmp_path / "a.ttf").write_bytes(b"no font")
    assert fonts._letters_of(str(tmp_path / "a.ttf")) == frozenset()
    assert fonts._letters_of(str(tmp_path / "none.ttf")) == frozenset()
