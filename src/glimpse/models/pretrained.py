"""Architectures of torchvision and timm, with published weights, weights from a file, or random
ones.

Sources: the classification networks of torchvision.models, and timm (Wightman 2019, PyTorch Image
Models). A network consists of two parts: `backbone` computes features of the images, and `head`,
its last layer, is sized from the data. The constructor reads no weights; `load_weights` reads them
once, at the start of a run, so that a resumed or inspected run needs only its checkpoint.

Left out: auxiliary classifiers (googlenet, inception_v3), the ReLU after squeezenet's last layer,
and networks with several heads. Architectures for a fixed image size accept only that size.
"""

import difflib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError, first_line, one_line
from glimpse.layers.image_size import USUAL_SIDES
from glimpse.models.weights import load_weights, read_weights
from glimpse.text import some

RGB = 3  # the channels that every architecture takes
# The weights of these networks come from TensorFlow. When torchvision builds them with weights, the
# network converts its input to these statistics. We build them without weights and convert the
# input in `Pretrained`, as for all architectures.
TENSORFLOW_STATISTICS = {"googlenet": (0.5, 0.5, 0.5), "inception_v3": (0.5, 0.5, 0.5)}


@dataclass(frozen=True)
class Architecture:
    """A network as its library builds it, with random weights, and its published weights.

    `options` are the arguments, in addition to the number of classes, that the library builds it
    with. `head` names the layer that computes the logits. `mean` and `std` are the statistics per
    channel, of pixels in [0, 1], that the published weights expect. `fetch` returns these weights
    from the library's cache or from `origin`.
    """

    network: nn.Module
    options: Mapping[str, Any]
    head: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fetch: Callable[[], Mapping[str, Tensor]]
    origin: str


class Pretrained(nn.Module):
    """(B, C, H, W) grey or RGB images, or their features (B, F), to logits (B, num_classes).

    The input is normalised with the dataset's statistics; `scale` and `shift` convert it to the
    statistics that the weights expect. Grey images are repeated in all three channels.

    Args:
        spec: The spec of the images.
        architecture: A name in torchvision, else in timm; `timm/<name>` selects timm if both have
            it.
        weights: "default" for the weights that the library recommends, "none" for random weights,
            or a file or run folder that models/weights.py reads, whose layers are named as in the
            library or as here.

    Raises:
        UserError: the architecture does not exist, or does not accept images of this size.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, spec: ImageSpec, *, architecture: str = "resnet18", weights: str | None = "default"
    ) -> None:
        super().__init__()
        if spec.channels not in (1, 3):
            raise UserError(
                f"the images have {spec.channels} channels, but model=pretrained expects grey or "
                "RGB images: type model=convnet"
            )
        self.architecture = architecture
        self.num_classes = spec.num_classes
        self.weights = weights or "none"
        self._library = found = find(architecture, spec.num_classes)
        self.backbone = found.network
        head = self.backbone.get_submodule(found.head)
        self._head_shapes = {name: value.shape for name, value in head.state_dict().items()}
        self.backbone.set_submodule(found.head, nn.Identity())
        self._mean, self._std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("scale", torch.empty(1, RGB, 1, 1))
        self.register_buffer("shift", torch.empty(1, RGB, 1, 1))
        self._expect(torch.tensor(found.mean), torch.tensor(found.std))
        self.num_features = self._count_features(spec)
        # If the last layer is a 1×1 convolution before the pooling, use a linear layer after it.
        linear = isinstance(head, nn.Linear)
        self.head = head if linear else nn.Linear(self.num_features, spec.num_classes)

    def _expect(self, mean: Tensor, std: Tensor) -> None:
        """Convert the input to the statistics, (3,) or (1,), that the backbone expects."""
        # ((image · self._std + self._mean) - mean) / std in one multiplication and one addition
        self.scale.copy_((self._std / std).view(1, -1, 1, 1))
        self.shift.copy_(((self._mean - mean) / std).view(1, -1, 1, 1))

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The mean and the standard deviation of each channel that the backbone expects."""
        mean, std = self._mean, self._std
        if self.weights != "none":
            std = std / self.scale.flatten().cpu()
            mean = mean - self.shift.flatten().cpu() * std
        return tuple(mean.tolist()), tuple(std.tolist())

    def forward(self, images: Tensor) -> Tensor:
        features = images if images.ndim == 2 else self.features(images)
        logits: Tensor = self.head(features)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """Compute the input of the head: (B, C, H, W) to (B, F)."""
        if self.weights != "none":
            images = torch.addcmul(self.shift, images, self.scale)  # (B, 3, H, W)
        else:
            images = images.expand(-1, RGB, -1, -1)
        features: Tensor = self.backbone(images)
        return features

    def _count_features(self, spec: ImageSpec) -> int:
        """Determine F from one black image in evaluation mode."""
        found = self._try(spec.height, spec.width)
        if isinstance(found, int):
            return found
        takes = [side for side in USUAL_SIDES if isinstance(self._try(side, side), int)]
        if not takes:
            raise UserError(
                f"model.architecture={self.architecture}: its layers before the head do not return one vector "
                f"per image ({first_line(found)}): type model.architecture=resnet18, or another one"
            )
        raise UserError(
            f"the images are {spec.height}×{spec.width}, but {self.architecture} expects images "
            f"of {takes[0]}×{takes[0]} ({first_line(found)}): type data.size={takes[0]}, "
            "or model.architecture=resnet18, which accepts any size"
        )

    def _try(self, height: int, width: int) -> int | Exception:
        self.backbone.eval()
        try:
            with torch.no_grad():
                features = self.backbone(torch.zeros(1, RGB, height, width))
            if not isinstance(features, Tensor) or features.ndim != 2:
                raise ValueError("several outputs, or maps instead of a vector")
        # The libraries' checks.
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            return error
        finally:
            self.backbone.train()
        return int(features.shape[1])

    def load_weights(self) -> str:
        """Load the weights that `model.weights` names. "none" keeps the random weights.

        The head starts from zero if the weights are for another number of classes, as in Kolesnikov
        et al. 2020 (Big Transfer), section 3.3.

        Returns:
            A line that says what was loaded; empty for "none".

        Raises:
            UserError: the weights cannot be read or fetched, or do not fit the network; the message
                names the first layer that does not fit.
        """
        if self.weights == "none":
            return ""
        if self.weights == "default":
            source = f"the published weights of {self.architecture}"
            found = self._fetch()
        else:
            source = f"model.weights={self.weights}"
            found, expected = read_weights(Path(self.weights))
            if expected is not None:
                self._expect(*expected)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        return load_weights(
            self,
            found,
            source,
            num_classes=self.num_classes,
            own_names=self._own_names,
            computed=("scale", "shift"),
            hint="; type model.architecture=<the architecture of these weights>",
        )

    def _own_names(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Convert the library's names to `backbone.…` and `head.…`, which our own files use."""
        head = f"{self._library.head}."
        renamed = _rename(state)
        # The library may call other layers head.…, such as head.norm of convnext.
        are_ours = any(name.startswith("backbone.") for name in renamed)
        found = {}
        for name, tensor in renamed.items():
            if not are_ours:
                is_head = name.startswith(head)
                name = f"head.{name.removeprefix(head)}" if is_head else f"backbone.{name}"
                if is_head and tensor.shape[2:] == (1, 1):  # a convolution as the last layer
                    tensor = tensor.flatten(1)
            if name not in ("backbone.scale", "backbone.shift"):
                found[name] = tensor
        return found

    def library_weights(self) -> dict[str, Tensor]:
        """The weights with the names and shapes of the library's own network for these classes."""
        found = {}
        for name, tensor in self.state_dict().items():
            part, _, rest = name.partition(".")
            if part == "head":
                shape = self._head_shapes[rest]
                found[f"{self._library.head}.{rest}"] = tensor.reshape(shape)
            elif part == "backbone":
                found[rest] = tensor
        return found

    @property
    def options(self) -> Mapping[str, Any]:
        """The arguments, in addition to the number of classes, for the library's own network."""
        return self._library.options

    def _fetch(self) -> Mapping[str, Tensor]:
        try:
            return self._library.fetch()
        except Exception as error:  # no network, wrong checksum, partial file: errors of any type
            reason = f"{type(error).__name__}: {one_line(str(error))}"
            raise UserError(
                f"cannot fetch the weights of {self.architecture} from {self._library.origin} "
                f"({reason}): type model.weights=<file> for a copy, or model.weights=none"
            ) from error


def find(architecture: str, num_classes: int) -> Architecture:
    """Find an architecture by name and build it with random weights and this many classes.

    Raises:
        UserError: neither library has the architecture; the message suggests the closest name.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if architecture in names:
        return _from_torchvision(architecture, num_classes)
    try:
        import timm  # optional, and slow to import
    except ImportError:
        more = "timm has more but is not installed: pip install timm"
    else:
        if timm.is_model(architecture.removeprefix("timm/")):
            return _from_timm(architecture.removeprefix("timm/"), num_classes)
        names += timm.list_models()
        more = "https://huggingface.co/timm lists more"
    near = difflib.get_close_matches(architecture.removeprefix("timm/"), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else more
    raise UserError(
        f"model.architecture={architecture}: neither torchvision nor timm has it; {hint}"
    )


def _from_torchvision(name: str, num_classes: int) -> Architecture:
    options: dict[str, Any] = {}
    if name in TENSORFLOW_STATISTICS:
        options = {"aux_logits": False, "init_weights": True}
    weights = torchvision.models.get_model_weights(name).DEFAULT
    if name.startswith("vit_"):  # their position embedding has a fixed size
        options = {"image_size": weights.meta["min_size"][0]}
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    layers = dict(network.named_modules())
    last = [n for n, layer in layers.items() if isinstance(layer, nn.Linear)]
    last = last or [n for n, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    expects = weights.transforms()
    return Architecture(
        network,
        options,
        last[-1],
        TENSORFLOW_STATISTICS.get(name, tuple(expects.mean)),
        TENSORFLOW_STATISTICS.get(name, tuple(expects.std)),
        lambda: weights.get_state_dict(progress=False, check_hash=True),
        weights.url,
    )


def _from_timm(name: str, num_classes: int) -> Architecture:
    import timm

    try:
        network: Any = timm.create_model(name, pretrained=False, num_classes=num_classes)
    except RuntimeError as error:  # the name has the tag of published weights
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        known = some([tag.partition(".")[2] for tag in tags], 10)
        raise UserError(f"model.architecture=timm/{name}: {error} It has {known}") from error
    head = network.get_classifier()
    # A classifier may be a module that pools first; then the linear layer in it is the head.
    parts = head.modules() if isinstance(head, nn.Module) else ()
    linear = [layer for layer in parts if isinstance(layer, nn.Linear)] or [head]
    names = [n for n, layer in network.named_modules() if layer is linear[0]]
    if not names or len(linear) > 1:
        raise UserError(
            f"model.architecture={name}: it has no single head to replace; choose another one"
        )
    published: Any = network.pretrained_cfg

    def fetch() -> Mapping[str, Tensor]:
        # Hide its warnings about retries.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        state: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
        return state

    origin = f"huggingface.co/{published.get('hf_hub_id')}"
    return Architecture(network, {}, names[0], published["mean"], published["std"], fetch, origin)


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Drop auxiliary classifiers, and rename densenet's layers from norm.1 to norm1."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name): tensor
        for name, tensor in state.items()
        if not name.startswith(("aux1.", "aux2.", "AuxLogits."))
    }
