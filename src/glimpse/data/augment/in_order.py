"""A list of augmentations, `augment=[crop_flip,colour_jitter,cutmix]`, applied in its order.

Most recipes here begin with a shift and a flip. A list shifts and flips only once: at the position
of `crop_flip`, `flip`, `alternating_flip` or `presize`, or else in the first recipe that begins
this way. A list therefore makes no unnecessary passes over the pixels.
"""

import inspect
from collections.abc import Mapping

from torch import Tensor

from glimpse.data.augment.base import Augmentation, Draws, resized
from glimpse.data.augment.flips import AlternatingFlip, CropFlip, Flip
from glimpse.data.augment.mixing import Mixing, as_probabilities
from glimpse.data.augment.presize import Presize
from glimpse.errors import UserError

MOVES = (Flip, AlternatingFlip, Presize)
MOVE = ("padding_fraction", "p")  # the settings of a shift and flip


class InOrder(Augmentation):
    """Apply several augmentations, one after the other.

    Args:
        members: The augmentations by name, in order.

    Raises:
        UserError: two of them only move the images; two shift by different fractions, and the list
            does not say which; or one has such a setting, but others move the images.
    """

    def __init__(self, members: Mapping[str, Augmentation]) -> None:
        self.members = list(members.values())
        self.mixes = any(member.mixes for member in self.members)
        self.remark = "; ".join(member.remark for member in self.members if member.remark)
        begin = {
            name: member
            for name, member in members.items()
            if isinstance(member, CropFlip) and type(member) is not CropFlip
        }
        moves = [name for name, m in members.items() if type(m) in (CropFlip, *MOVES)]
        if len(moves) > 1:
            raise UserError(
                f"augment: {moves[0]} and {moves[1]} both mirror the images, but a list shifts and flips them "
                "once: remove one of the two"
            )
        # Its settings say which move is meant.
        has_crop_flip = any(type(m) is CropFlip for m in self.members)
        has_move = has_crop_flip or any(isinstance(m, MOVES) for m in self.members)
        if not has_move:
            _require_same_move(begin)
        elif not has_crop_flip:
            _require_unchanged(begin)
        self._moves_already = list(begin.values())[0 if has_move else 1 :]
        # Images keep their stored size up to the last member that reads it.
        self._resizes = max(
            (i for i, m in enumerate(self.members) if type(m).sized is not Augmentation.sized),
            default=0,
        )

    @property
    def label(self) -> str:
        return ", ".join(member.label for member in self.members)

    def __call__(self, images: Tensor, draws: Draws) -> Tensor:
        return self.sized(images, (images.shape[2], images.shape[3]), draws)

    def sized(self, images: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
        return self.batch(images, draws.indices * 0, size, draws, 1)[0]

    def batch(
        self, images: Tensor, labels: Tensor, size: tuple[int, int], draws: Draws, num_classes: int
    ) -> tuple[Tensor, Tensor]:
        for place, member in enumerate(self.members):
            now = size if place >= self._resizes else (images.shape[2], images.shape[3])
            if isinstance(member, CropFlip) and any(member is m for m in self._moves_already):
                images = member.change(resized(images, now), draws)
                if isinstance(member, Mixing):
                    shares = as_probabilities(labels, num_classes)
                    images, labels = member.mixed(images, shares, draws)
            else:
                images, labels = member.batch(images, labels, now, draws, num_classes)
        return images, labels


def _require_unchanged(begin: Mapping[str, CropFlip]) -> None:
    """Refuse settings of a shift and flip that the list leaves out, because others move the images."""
    of_all = inspect.signature(CropFlip).parameters  # a user's class need not have them
    for name, member in begin.items():
        defaults = {**of_all, **inspect.signature(type(member)).parameters}
        for key in MOVE:
            if getattr(member, key) != defaults[key].default:
                raise UserError(
                    f"augment.{name}.{key}={getattr(member, key):g} has no effect in this list, in which "
                    f"another augmentation moves the images: remove augment.{name}.{key}"
                )


def _require_same_move(begin: Mapping[str, CropFlip]) -> None:
    """Require recipes that begin with a shift and a flip to agree on them."""
    for key in MOVE:
        values = {name: getattr(member, key) for name, member in begin.items()}
        if len(set(values.values())) > 1:
            found = ", ".join(f"{name} {value:g}" for name, value in values.items())
            raise UserError(
                f"augment: {key} differs ({found}), but a list shifts and flips images once: type "
                f"augment=[crop_flip,{','.join(values)}] and augment.crop_flip.{key}=<value>"
            )
