"""Measure how a network's accuracy falls when its images are shifted.

A fully connected network learns positions, whereas a convnet learns shapes (Stevens, Antiga &
Viehmann, Deep Learning with PyTorch, ch. 7).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glimpse.insight.predictions import inputs_of
from glimpse.progress_bar import tracked
from glimpse.runs.trained import TrainedRun

DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # right, left, down, up


@torch.no_grad()
def accuracy_by_shift(
    run: TrainedRun, split: str, *, distances: Sequence[int], max_images: int
) -> list[float]:
    """The accuracy for each shift distance, as the mean over four directions.

    The pixels at the edge are repeated to fill the gap, so that no new edge appears.

    Args:
        run: The run with the network and its data.
        split: A split of the data.
        distances: The distances in pixels of the network's input; 0 leaves the images unchanged.
        max_images: The number of images to draw from the split, if it has more.

    Returns:
        The accuracies in [0, 1], one per distance.
    """
    data = run.data
    labels = torch.from_numpy(data.labels(split))
    chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:max_images])
    batches = np.array_split(chosen, -(-len(chosen) // data.batch_size))
    correct = torch.zeros(len(distances))
    for positions in tracked(batches, f"moving {run.name}", len(chosen), unit="image", size=len):
        images = inputs_of(data, split, positions, device=run.device)
        right = labels[positions].to(run.device)
        for place, distance in enumerate(distances):
            ways = DIRECTIONS if distance else ((0, 0),)
            for down, across in ways:
                logits = run.network(shifted(images, down * distance, across * distance))
                correct[place] += (logits.argmax(1) == right).sum().item() / len(ways)
    return (correct / len(chosen)).tolist()


def shifted(images: Tensor, down: int, across: int) -> Tensor:
    """Shift (B, C, H, W) images by whole pixels, down and to the right, with repeated edges."""
    height, width = images.shape[-2:]
    reach_down, reach_across = abs(down), abs(across)
    padded = F.pad(images, (reach_across, reach_across, reach_down, reach_down), mode="replicate")
    top, left = reach_down - down, reach_across - across
    return padded[..., top : top + height, left : left + width]
