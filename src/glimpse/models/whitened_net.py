"""A small convnet that trains in few epochs: a whitening layer, then blocks of convolutions.

Source: Jordan 2024, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, sections 3.1 to 3.3; the
whitening layer comes from Page (2019, How to Train Your ResNet 8: Bag of Tricks). The filters of
the first layer are not trained: they are the eigenvectors of the covariance of the training images'
patches, scaled so that their responses have variance one, and the same filters with opposite sign.
Convolutions start as partial identities (Dirac), and batch norms have no gain.

How ours differs: the bias of the first layer is trained for the whole run (in airbench94_muon, for
three epochs); the eps of the batch norms is 1e-5 (in airbench, 1e-12); the multiplication of the
logits by 1/9 is part of the network; the last pooling is global, so that any image size works; and
patches may be larger and further apart. The last option is for images of more than 32 pixels, where
the first layers would otherwise cost more than all others. In larger patches, the finest directions
have little variance and consist of noise and of detail that resizing removes; a larger `eps` keeps
their responses small.
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
LOOKED_AT_TOGETHER = 64  # images; their patches need patch² times as much memory


class WhitenedNet(nn.Module):
    """(B, C, H, W) to logits (B, num_classes), for images of 9×9 or larger.

    Args:
        spec: The spec of the images.
        widths: Channels of each block; each block pools by 2.
        patch: Side of the whitened patches, in pixels. With 3 or more, images are padded so that
            every `stride`th pixel up to the border has a patch around it.
        stride: Distance between neighbouring patches, in pixels.
        eps: Added to the variances of the patches, for images normalised to variance one. Detail
            with less variance than this keeps a small response.
        depth: Convolutions in each block. With 3 or more, a residual connection spans those after
            the first, as in airbench96, the slowest network of cifar10-airbench.

    Raises:
        UserError: `depth` is less than 1, or the images are too small.
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
        after = [lambda side: ((side + 2 * padding - patch) // stride + 1) // 2 ** len(widths)]
        require(spec, after, "whitened_net")
        num_filters = 2 * spec.channels * patch**2
        self.whiten = nn.Conv2d(spec.channels, num_filters, patch, stride, padding)
        self.whiten.weight.requires_grad_(False)  # the bias is trained
        self.eps = eps
        channels = [num_filters, *widths]
        self.blocks = nn.Sequential(
            *(_block(channels[i], channels[i + 1], depth) for i in range(len(widths)))
        )
        self.head = nn.Linear(widths[-1], spec.num_classes, bias=False)

    @torch.no_grad()
    def look_at(self, images: Tensor) -> None:
        """Set the first layer from training images (N, C, H, W), preprocessed as in training."""
        total = torch.zeros(())
        products = torch.zeros(())
        num_patches = 0
        for some in torch.split(images, LOOKED_AT_TOGETHER):
            patches = F.unfold(some.float(), self.whiten.kernel_size).double()  # (n, C·patch², M)
            total = total + patches.sum((0, 2))
            # One product per image: a single product over all patches is ten times slower on a CPU.
            products = products + (patches @ patches.mT).sum(0)
            num_patches += len(patches) * patches.shape[2]
        mean = total / num_patches
        covariance = products / num_patches - torch.outer(mean, mean)
        variances, vectors = torch.linalg.eigh(covariance.float())  # ascending
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
        _convolution(num_inputs, num_outputs), _Halved(2), _norm(num_outputs), nn.GELU(), *rest
    )


class _Residual(nn.Sequential):
    def forward(self, features: Tensor) -> Tensor:
        branch: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        return features + branch


class _Halved(nn.MaxPool2d):
    """Max pooling that skips maps of side 1, which occur with the progressive_sizes callback."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) if min(images.shape[2:]) >= 2 else images


def _convolution(num_inputs: int, num_outputs: int) -> nn.Conv2d:
    """Build a convolution with PyTorch's initial weights, the first filters set to the identity."""
    convolution = PatchConv2d(num_inputs, num_outputs, bias=False)
    nn.init.dirac_(convolution.weight.data[:num_inputs])
    return convolution


def _norm(num_channels: int) -> nn.BatchNorm2d:
    """Build a batch norm with a bias and no gain; its averages adapt within a few batches."""
    norm = nn.BatchNorm2d(num_channels, eps=1e-5, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
