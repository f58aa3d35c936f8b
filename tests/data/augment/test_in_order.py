"""A list of augmentations: in its order, and with one shift and flip in all."""

import pytest
import torch
from omegaconf import OmegaConf

from conftest import composed
from glimpse.assembly import build_augment
from glimpse.data.augment.base import Augmentation, Draws
from glimpse.data.augment.colour import ColourJitter
from glimpse.data.augment.flips import AlternatingFlip, CropFlip, Flip
from glimpse.data.augment.in_order import InOrder
from glimpse.data.augment.mixing import CutMix
from glimpse.data.augment.presize import Presize
from glimpse.errors import UserError
from noise import draws_of, noise

LABELS = torch.arange(40) % 3


def augmented(augment: Augmentation) -> tuple[torch.Tensor, torch.Tensor]:
    return augment.batch(noise(), LABELS, (12, 16), draws_of(), 3)


def test_a_list_draws_as_its_members_do_one_after_the_other() -> None:
    crop, jitter, mix = CropFlip(), ColourJitter(), CutMix(alpha=1.0, mix_p=1.0)
    images, labels = augmented(InOrder({"crop": crop, "jitter": jitter, "mix": mix}))
    draws = draws_of()
    expected = jitter.change(crop(noise(), draws), draws)  # jitter and mix do not move them again
    expected, shares = mix.mixed(expected, torch.eye(3)[LABELS], draws)
    assert torch.equal(images, expected)
    assert torch.equal(labels, shares)


def test_a_picture_names_the_members_of_a_list() -> None:
    node = OmegaConf.create(
        {
            "crop": {"_target_": "glimpse.data.augment.flips.CropFlip"},
            "jitter": {"_target_": "torchvision.transforms.v2.ColorJitter"},
        }
    )
    augment = build_augment(node)
    assert augment is not None
    assert augment.label == "CropFlip, ColorJitter"


def test_a_setting_of_a_move_that_is_left_out_is_refused() -> None:
    with pytest.raises(UserError, match=r"augment\.jitter\.padding_fraction=0\.25 has no effect"):
        InOrder({"flip": Flip(), "jitter": ColourJitter(padding_fraction=0.25)})


@pytest.mark.parametrize("first", [CropFlip(), Flip(), Presize()])
def test_two_members_that_only_move_the_images_are_refused(first: Augmentation) -> None:
    with pytest.raises(UserError, match=r"augment: one and other both mirror .* remove one of the"):
        InOrder({"one": first, "jitter": ColourJitter(), "other": AlternatingFlip()})


class Darker(CropFlip):
    """A user's recipe, without settings of its own."""

    def __init__(self, **move: float) -> None:
        super().__init__(**move)

    def change(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        return images // 2


def test_a_recipe_of_ones_own_stands_in_a_list() -> None:
    images, _ = augmented(InOrder({"flip": Flip(p=0), "mine": Darker()}))
    assert torch.equal(images, noise() // 2)
    with pytest.raises(UserError, match=r"augment\.mine\.p=0\.9 has no effect"):
        InOrder({"flip": Flip(), "mine": Darker(p=0.9)})


def test_without_crop_flip_the_first_recipe_moves_the_images() -> None:
    jitter, mix = ColourJitter(), CutMix(alpha=1.0, mix_p=1.0)
    images, _ = augmented(InOrder({"jitter": jitter, "mix": mix}))
    draws = draws_of()
    expected, _ = mix.mixed(jitter(noise(), draws), torch.eye(3)[LABELS], draws)
    assert torch.equal(images, expected)


def test_mixing_first_is_mixing_before_the_colours_change() -> None:
    jitter, mix = ColourJitter(), CutMix(alpha=1.0, mix_p=1.0)
    images, labels = augmented(InOrder({"mix": mix, "jitter": jitter}))
    draws = draws_of()
    expected, shares = mix.mixed(mix(noise(), draws), torch.eye(3)[LABELS], draws)
    assert torch.equal(images, jitter.change(expected, draws))
    assert torch.equal(labels, shares)


def test_two_moves_that_differ_are_named() -> None:
    members = {"jitter": ColourJitter(padding_fraction=0.25), "mix": CutMix(alpha=1.0, mix_p=1.0)}
    with pytest.raises(UserError, match=r"padding_fraction differs \(jitter 0.25, mix 0.125\)"):
        InOrder(members)
    InOrder({"crop": CropFlip(), **members})  # which says what is meant


@pytest.mark.parametrize("choice", ["[]", "[none]", "none"])
def test_nothing_chosen_is_nothing(choice: str) -> None:
    config, _ = composed(f"augment={choice}")
    assert build_augment(config.get("augment")) is None


def test_a_list_of_one_is_that_one() -> None:
    config, chosen = composed("augment=[colour_jitter]", "augment.colour_jitter.hue=0.2")
    augment = build_augment(config.augment)
    assert isinstance(augment, ColourJitter)
    assert augment.ranges[3] == pytest.approx(0.2)
    assert chosen["augment"] == "[colour_jitter]"


def test_a_number_out_of_range_is_named_in_a_list_too() -> None:
    with pytest.raises(UserError, match=r"augment\.cutmix\.alpha=0: expected at least 0\.01"):
        composed("augment=[flip,cutmix]", "augment.cutmix.alpha=0")


def test_presize_reads_the_stored_images_wherever_it_stands() -> None:
    node = OmegaConf.create(
        {
            "colour_jitter": {"_target_": "glimpse.data.augment.colour.ColourJitter"},
            "presize": {"_target_": "glimpse.data.augment.presize.Presize"},
            "cutmix": {
                "_target_": "glimpse.data.augment.mixing.CutMix",
                "alpha": 1.0,
                "mix_p": 0.5,
            },
        }
    )
    augment = build_augment(node)
    assert augment is not None
    images, labels = augment.batch(noise(), LABELS, (8, 9), draws_of(), 3)
    assert images.shape == (40, 3, 8, 9)
    assert labels.sum(1) == pytest.approx(torch.ones(40), abs=1e-6)
