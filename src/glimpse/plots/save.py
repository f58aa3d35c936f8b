"""Begin matplotlib figures, and save them and raw pixels as PNGs."""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from glimpse.files import replacing
from glimpse.plots.fonts import font_families

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

DPI = 110
COMPRESSION = 1  # of zlib; its default takes 1.5 times as long, for slightly smaller files


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches, whose parts keep clear of each other.

    matplotlib takes a second to import, so it is imported only when something is drawn.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", dpi=DPI)


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as a PNG.

    Raises:
        UserError: the file cannot be written.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if isinstance(text, Text) and not text.get_text().isascii():
            text.set_fontfamily(font_families(text.get_text()))
    with replacing(path, flush=False) as partial, warnings.catch_warnings():
        # Letters that no font has are drawn as boxes.
        warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
        figure.savefig(partial, pil_kwargs={"compress_level": COMPRESSION})


def save_pixels(pixels: "Tensor", path: Path) -> None:
    """Write (3, H, W) uint8 pixels as a PNG.

    Raises:
        UserError: the file cannot be written.
    """
    with replacing(path, flush=False) as partial:
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        picture.save(partial, compress_level=COMPRESSION)
