"""A small convnet that learns in few epochs: whitened patches, then blocks of convolutions.

Source: Jordan 2024, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, sections 3.1 to 3.3; the whitening
layer is Page's (2019, How to Train Your ResNet 8: Bag of Tricks). The first layer is not learnt: its
filters are the eigenvectors of the training images' patches, scaled so that their answers have
variance one, and the same with the other sign. Convolutions start as partial identities (Dirac);
batch norms have no gain. How ours differs: one multiplication of the logits by 1/9 is kept inside, the last pooling
is global, so that any image size will do, and patches may be larger and further apart, for images of
more than 32 pixels, whose first layers would cost more than all others. Of such patches the finest
directions, which hardly vary, are noise and what resizing removes: a larger `eps` leaves them small.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.layers.image_size import require
from glimpse.layers.patch_conv import PatchConv2d

LOGIT_SCALE = 1 / 9
LOOKED_AT_TOGETHER = 64  # images, whose patches take patch² times their memory


class WhitenedNet(nn.Module):
    """(B, C, H, W) to logits (B, num_classes), for images of 9×9 or larger.

    Args:
        spec: of the images.
        widths: channels of each block; a block pools by 2.
        patch: pixels of a side of the whitened patches; images are padded so that those of 3 pixels
            and more have one around every `stride`th pixel, to the border.
        stride: pixels from one patch to the next.
        eps: added to the patches' variances, of images normalised to variance one: fine detail of
            less variance than this stays faint.
        depth: convolutions of each block; where three or more, those after the first are added to
            what they read, as in cifar10-airbench's slowest network, airbench96.

    Raises:
        UserError: depth is below one, or the images are too small.
    """

    def __init__(
        self,
        spec: ImageSpec,
        *,
        widths: Sequence[int] = (64, 256, 256),
        patch: int = 2,
        stride: int = 1,
        eps: float = 5e-4,
        depth: int = 2,
    ) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"model.depth={depth}: expected 1 or more")
        padding = (patch - 1) // 2
        after = [
            lambda side: ((side + 2 * padding - patch) // stride + 1) // 2 ** len(widths),
        ]
        require(spec, after, "whitened_net")
        num_filters = 2 * spec.channels * patch**2
        self.whiten = nn.Conv2d(spec.channels, num_filters, patch, stride, padding)
        self.whiten.weight.requires_grad_(False)
        self.eps = eps
        channels = [num_filters, *widths]
        self.blocks = nn.Sequential(
            *(_block(channels[i], channels[i + 1], depth) for i in range(len(widths)))
        )
        self.head = nn.Linear(widths[-1], spec.num_classes, bias=False)

    @torch.no_grad()
    def look_at(self, images: Tensor) -> None:
        """Set the first layer from some training images (N, C, H, W), as the network sees them."""
        total = torch.zeros(())
        products = torch.zeros(())
        num_patches = 0
        for some in torch.split(images, LOOKED_AT_TOGETHER):
            patches = F.unfold(some.float(), self.whiten.kernel_size).double()  # (n, C·patch², M)
            total = total + patches.sum((0, 2))
            # By image: one thin product over the patches of all takes ten times longer on a CPU.
            products = products + (patches @ patches.mT).sum(0)
            num_patches += len(patches) * patches.shape[2]
        mean = total / num_patches
        covariance = products / num_patches - torch.outer(mean, mean)
        variances, vectors = torch.linalg.eigh(covariance.float())  # rising
        scaled = (vectors / (variances + self.eps).sqrt()).T.flip(0)  # (C·patch²)²
        filters = scaled.view(-1, *self.whiten.weight.shape[1:])
        self.whiten.weight.copy_(torch.cat((filters, -filters)))
        nn.init.zeros_(self.whiten.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        features = self.blocks(F.gelu(self.whiten(images)))
        logits: Tensor = self.head(features.amax((2, 3))) * LOGIT_SCALE
        return logits


def _block(num_inputs: int, num_outputs: int, depth: int) -> nn.Sequential:
    rest: list[nn.Module] = []
    for _ in range(depth - 1):
        rest += [_convolution(num_outputs, num_outputs), _norm(num_outputs), nn.GELU()]
    if depth > 2:
        rest = [_Residual(*rest[:-1]), nn.GELU()]
    return nn.Sequential(
        _convolution(num_inputs, num_outputs),
        _Halved(2),
        _norm(num_outputs),
        nn.GELU(),
        *rest,
    )


class _Residual(nn.Sequential):
    def forward(self, features: Tensor) -> Tensor:
        branch: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        return features + branch


class _Halved(nn.MaxPool2d):
    """Max pooling, left out where it would leave nothing: of images shrunk by progressive_sizes."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if min(images.shape[2:]) >= 2 else images


def _convolution(num_inputs: int, num_outputs: int) -> nn.Conv2d:
    """PyTorch's weights, the first of them an identity."""
    convolution = PatchConv2d(num_inputs, num_outputs, bias=False)
    nn.init.dirac_(convolution.weight.data[:num_inputs])
    return convolution


def _norm(num_channels: int) -> nn.BatchNorm2d:
    """Batch norm with a bias, without a gain; its averages follow within a few batches."""
    norm = nn.BatchNorm2d(num_channels, eps=1e-5, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
