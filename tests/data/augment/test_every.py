"""What holds for every choice of `augment=`."""

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from conftest import CONF, choices
from glimpse.config.build import build
from glimpse.data.augment.base import Augmentation, resized
from glimpse.data.augment.mixing import Mixing
from noise import draws_of, noise

AUGMENTS = [choice for choice in choices("augment") if choice != "none"]
OFF = {
    "padding_fraction": 0.0, "p": 0.0, "side_fraction": 0.0, "brightness": 0.0, "contrast": 0.0,
    "saturation": 0.0, "hue": 0.0, "mix_p": 0.0, "min_scale": 1.0, "p_affine": 0.0,
    "p_lighting": 0.0,
}  # fmt: skip


def built(choice: str, **changes: float) -> Augmentation:
    augment = build("augment", {**OmegaConf.load(CONF / "augment" / f"{choice}.yaml"), **changes})
    assert isinstance(augment, Augmentation)
    return augment


def changed(augment: Augmentation, images: Tensor, **of: int) -> Tensor:
    """Images after everything that keeps them apart from each other."""
    return augment(images, draws_of(len(images), **of))


@pytest.mark.parametrize("choice", AUGMENTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_stay_bytes_of_their_shape_and_change(choice: str, channels: int) -> None:
    images = noise(channels=channels)
    after = changed(built(choice), images)
    assert after.shape == images.shape
    assert after.dtype == torch.uint8
    assert not torch.equal(after, images)


@pytest.mark.parametrize("choice", AUGMENTS)
def test_the_same_seed_and_epoch_give_the_same_images_and_others_do_not(choice: str) -> None:
    images = noise(channels=3)
    once, again = (changed(built(choice), images, seed=2, epoch=4) for _ in range(2))
    assert torch.equal(once, again)
    for other in ({"seed": 3, "epoch": 4}, {"seed": 2, "epoch": 5}):
        assert not torch.equal(once, changed(built(choice), images, **other))


@pytest.mark.parametrize("choice", AUGMENTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_changed_alike_in_any_batch(choice: str, channels: int) -> None:
    images = noise(200, channels)
    together = changed(built(choice), images)
    for row in (0, 7, 199):
        draws = draws_of(200)
        draws.indices = draws.indices[row : row + 1]
        assert torch.equal(built(choice)(images[row : row + 1], draws)[0], together[row])


@pytest.mark.parametrize("choice", AUGMENTS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_layout_in_memory_changes_nothing(choice: str, channels: int) -> None:
    images = noise(channels=channels)
    # as the loader's batches come: (B, H, W, C) in memory
    last = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert torch.equal(changed(built(choice), images), changed(built(choice), last))


@pytest.mark.parametrize(
    "choice", [c for c in AUGMENTS if c not in ("alternating_flip", "trivial_augment")]
)
def test_switched_off_it_changes_nothing(choice: str) -> None:
    arguments = OmegaConf.load(CONF / "augment" / f"{choice}.yaml")
    augment = built(choice, **{key: OFF[str(key)] for key in arguments if key in OFF})
    images = noise()
    assert torch.equal(changed(augment, images), images)
    if isinstance(augment, Mixing):
        labels = torch.eye(40)
        mixed, shares = augment.mixed(images, labels, draws_of())
        assert torch.equal(mixed, images)
        assert torch.equal(shares, labels)


@pytest.mark.parametrize("choice", AUGMENTS)
def test_images_are_brought_to_the_size_that_the_network_sees(choice: str) -> None:
    images = noise()
    seen = built(choice).sized(images, (9, 10), draws_of())
    assert seen.shape == (40, 3, 9, 10)
    if choice != "presize":  # which interpolates once, from the stored images
        assert torch.equal(seen, changed(built(choice), resized(images, (9, 10))))


@pytest.mark.gpu
@pytest.mark.parametrize("choice", AUGMENTS)
def test_a_gpu_changes_images_alike(choice: str) -> None:
    images, draws = noise(200), draws_of(200)
    draws.indices = draws.indices.cuda()
    there = built(choice)(images.cuda(), draws).cpu()
    difference = (there.int() - changed(built(choice), images).int()).abs()
    assert (difference > 1).float().mean() < 0.001  # rounding, and pixels at a tie


@pytest.mark.parametrize("size", [(24, 1), (1, 1), (1, 24)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_strip_one_pixel_wide_is_resized_as_in_floats(
    size: tuple[int, int], channels: int
) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2, channels, 24, 24), generator=random, dtype=torch.uint8)
    exact = torch.nn.functional.interpolate(images.float(), size, mode="bilinear", antialias=True)
    assert (resized(images, size).float() - exact).abs().max() <= 1
