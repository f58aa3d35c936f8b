"""The curves of a run are drawn alike, whatever a notebook has set for its own figures."""

from pathlib import Path

import matplotlib as mpl
from PIL import Image

from glimpse.plots.curves import draw_epochs

ROWS = [
    {"epoch": str(epoch), "train/loss": str(1 / epoch), "val/loss": str(1.1 / epoch)}
    for epoch in (1, 2, 3)
]


def test_a_notebooks_layout_changes_nothing(tmp_path: Path) -> None:
    draw_epochs(ROWS, tmp_path / "plain.png")
    with mpl.rc_context({"figure.constrained_layout.use": True}):
        draw_epochs(ROWS, tmp_path / "notebook.png")
    with (
        Image.open(tmp_path / "plain.png") as plain,
        Image.open(tmp_path / "notebook.png") as other,
    ):
        assert plain.tobytes() == other.tobytes()
