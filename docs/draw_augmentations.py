"""Draw docs/images/augmentations.png: what each `augment=` makes of the same photographs.

    python docs/draw_augmentations.py

The photographs come with scikit-learn: china.jpg and flower.jpg (CC-BY), cut to squares and stored at
128 pixels; the network would see 96. Each row is one choice with its defaults; mixtures show their
labels.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from glimpse.config.build import build
from glimpse.config.folder import config_folder
from glimpse.data.augment.base import Draws, resized
from glimpse.data.augment.mixing import Mixing

STORED, SEEN = (128, 128), (96, 96)
NUM_COPIES = 3  # of each photograph
CHOICES = (
    "none", "flip", "crop_flip", "alternating_flip", "cutout", "colour_jitter", "presize",
    "trivial_augment", "mixup", "cutmix",
)  # fmt: skip


def photographs() -> tuple[Tensor, Tensor]:
    """Both, in turn, at the size in which a dataset would store them: (B, 3, H, W) and labels."""
    squares = [torch.tensor(photo[:, 110:537]) for photo in load_sample_images().images]
    both = resized(torch.stack(squares).permute(0, 3, 1, 2), STORED)
    return both.repeat(NUM_COPIES, 1, 1, 1), torch.arange(2).repeat(NUM_COPIES)


def main() -> None:
    """Draw the figure."""
    images, labels = photographs()
    figure = Figure(figsize=(7.6, 11.4), dpi=80, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, hspace=0, wspace=0)
    grid = figure.subplots(len(CHOICES), len(images))
    for row, choice in zip(grid, CHOICES, strict=True):
        augment = build("augment", OmegaConf.load(config_folder() / "augment" / f"{choice}.yaml"))
        draws = Draws(torch.arange(len(images)), seed=1, epoch=0)
        if augment is None:
            seen = resized(images, SEEN)
        elif choice == "alternating_flip":  # successive epochs of two images
            pairs = [
                augment.sized(images[:2], SEEN, Draws(torch.arange(2), seed=0, epoch=epoch))
                for epoch in range(NUM_COPIES)
            ]
            seen = torch.cat(pairs)
        else:
            seen = augment.sized(images, SEEN, draws)
        captions = [""] * len(images)
        if isinstance(augment, Mixing):
            seen, shares = augment.mixed(seen, F.one_hot(labels).float(), draws)
            captions = [f"{100 * share[1]:.0f} % flower" for share in shares]
        if choice == "alternating_flip":
            captions = [f"epoch {1 + n // 2}" for n in range(len(images))]
        for axis, image, caption in zip(row, seen, captions, strict=True):
            axis.imshow(image.permute(1, 2, 0).numpy())
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(caption, fontsize=9, labelpad=2)
        row[0].set_ylabel(choice, rotation=0, ha="right", va="center", fontsize=12)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    # 256 colours, chosen for their range, because the jittered ones are rare: half the file.
    palette = pixels.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=3)
    palette.save(Path(__file__).parent / "images" / "augmentations.png", optimize=True)


if __name__ == "__main__":
    main()
