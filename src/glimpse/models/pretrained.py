"""Architectures of torchvision and timm, with their published weights, a file's, or none.

Sources: torchvision.models (those that classify) and timm (Wightman 2019, PyTorch Image Models).
A network is divided where it decides: `backbone` makes features of images, `head` is its last layer,
sized from the data. Building it reads no weights; `load_weights` does, once, when a run starts, so
that a run that is resumed or looked at later needs nothing but its checkpoint.

Left out: auxiliary classifiers (googlenet, inception_v3), the ReLU that squeezenet has behind its
last layer, and networks with several heads. Architectures made for one image size take that size.
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
from glimpse.errors import UserError
from glimpse.layers.image_size import ImageTooSmallError

# Their weights are TensorFlow's; where torchvision builds them with weights, the network itself goes
# over to these statistics. We build without, and do it in the one place where we do it for all.
TENSORFLOW_STATISTICS = {"googlenet": (0.5, 0.5, 0.5), "inception_v3": (0.5, 0.5, 0.5)}
SIDES = (
    16,
    32,
    64,
    96,
    128,
    160,
    192,
    224,
    256,
    299,
    320,
    384,
    448,
    512,
    518,
)  # tried, for the error


@dataclass(frozen=True)
class Architecture:
    """A network as its library builds it, with random weights, and what its published ones are.

    `head` names the layer that makes the logits. `mean` and `std` are per channel, of pixels in
    [0, 1], as the published weights expect them. `fetch` returns these, from the library's cache or
    from `origin`.
    """

    network: nn.Module
    head: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fetch: Callable[[], Mapping[str, Tensor]]
    origin: str


class Pretrained(nn.Module):
    """(B, C, H, W) grey or RGB images, or features (B, F) of them, to logits (B, num_classes).

    Images come normalised as the dataset has them; `scale` and `shift` make of that what the weights
    expect. Grey images meet a first layer whose weights are summed over its three channels: this
    equals feeding the image three times, normalised with the mean over channels of the weights'
    statistics.

    Args:
        spec: of the images.
        architecture: a name of torchvision's, else of timm's; `timm/<name>` where both have it.
        weights: "default" are the ones its library recommends; "none" leaves random ones; else a
            file (.pth or .safetensors) with a state dict, layers named as the library names them.

    Raises:
        UserError: there is no such architecture.
        ImageTooSmallError: it does not take images of this size.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, spec: ImageSpec, *, architecture: str = "resnet18", weights: str = "default"
    ) -> None:
        super().__init__()
        if spec.channels not in (1, 3):
            raise UserError(
                f"model=pretrained takes grey or RGB images, these have {spec.channels} channels: "
                "type model=convnet"
            )
        self.architecture = architecture
        self.weights = weights
        self._library = found = find(architecture, spec.num_classes)
        self.backbone = found.network
        head = self.backbone.get_submodule(found.head)
        self.backbone.set_submodule(found.head, nn.Identity())
        mean, std = torch.tensor(found.mean), torch.tensor(found.std)
        if spec.channels == 1:
            self._stem = _sum_stem(self.backbone)
            mean, std = mean.mean(0, keepdim=True), std.mean(0, keepdim=True)
        # ((image · spec.std + spec.mean) - mean) / std in one multiplication and one addition
        scale = torch.tensor(spec.std) / std
        shift = (torch.tensor(spec.mean) - mean) / std
        self.register_buffer("scale", scale.view(1, -1, 1, 1))
        self.register_buffer("shift", shift.view(1, -1, 1, 1))
        self.num_features = self._count_features(spec)
        # Where the last layer is a 1×1 convolution before the pooling, a linear one after it.
        linear = isinstance(head, nn.Linear)
        self.head = head if linear else nn.Linear(self.num_features, spec.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = images if images.ndim == 2 else self.features(images)
        logits: Tensor = self.head(features)
        return logits

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to what the head reads, (B, F)."""
        if self.weights != "none":
            images = torch.addcmul(self.shift, images, self.scale)
        features: Tensor = self.backbone(images)
        return features

    def _count_features(self, spec: ImageSpec) -> int:
        """F, from one black image in evaluation mode."""
        found = self._try(spec.channels, spec.height, spec.width)
        if isinstance(found, int):
            return found
        takes = [side for side in SIDES if isinstance(self._try(spec.channels, side, side), int)]
        which = f"of {takes[0]}×{takes[0]}" if takes else "of another size"
        raise ImageTooSmallError(
            f"{self.architecture} takes images {which}, these are {spec.height}×{spec.width} "
            f"({str(found).splitlines()[0]}): type data.size={takes[0] if takes else 224}, or "
            "model.architecture=resnet18, which takes any"
        )

    def _try(self, channels: int, height: int, width: int) -> int | Exception:
        self.backbone.eval()
        try:
            with torch.no_grad():
                features = self.backbone(torch.zeros(1, channels, height, width))
        except (RuntimeError, ValueError, AssertionError) as error:  # the libraries check so
            return error
        finally:
            self.backbone.train()
        return int(features.shape[1])

    def load_weights(self) -> None:
        """Take the weights that `model.weights` names; nothing for none.

        Raises:
            UserError: they cannot be had, or do not fit; the first layer that does not is named.
        """
        if self.weights == "none":
            return
        if self.weights == "default":
            source = f"the published weights of {self.architecture}"
            found = _rename(self._fetch())
        else:
            source = f"model.weights={self.weights}"
            found = _rename(read_state_dict(Path(self.weights)))
        wanted = self.backbone.state_dict()
        head = {f"{self._library.head}.{k}": v for k, v in self.head.state_dict().items()}
        if all(k in found and found[k].shape == v.shape for k, v in head.items()):
            wanted |= head
        else:  # a head for other classes: ours starts from zero, Kolesnikov et al. 2020, section 3.3
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)
            found = {k: v for k, v in found.items() if not k.startswith(f"{self._library.head}.")}
        for name, ours in wanted.items():
            if name not in found:
                if name.endswith("num_batches_tracked"):  # which older files do not have
                    continue
                raise self._misfit(source, name, "missing", _shape(ours))
            theirs = found[name]
            if name == getattr(self, "_stem", None) and theirs.shape[1] == 3:
                theirs = theirs.sum(1, keepdim=True)
            if theirs.shape != ours.shape:
                raise self._misfit(source, name, _shape(theirs), _shape(ours))
            ours.copy_(theirs)
        for name in found:
            if name not in wanted:
                raise self._misfit(source, name, _shape(found[name]), "no such layer")

    def _misfit(self, source: str, name: str, found: str, expected: str) -> UserError:
        return UserError(
            f"{source} do not fit {self.architecture}: {name} is {found}, expected {expected}; "
            "type the model.architecture that they were made for"
        )

    def _fetch(self) -> Mapping[str, Tensor]:
        try:
            return self._library.fetch()
        except Exception as error:  # no network, a wrong checksum, half a file: each library's own
            message = (str(error).splitlines() or ["no message"])[0]
            reason = f"{type(error).__name__}: {message}"
            raise UserError(
                f"cannot fetch the weights of {self.architecture} from {self._library.origin} "
                f"({reason}): type model.weights=<file> for a copy, or model.weights=none"
            ) from error


def find(architecture: str, num_classes: int) -> Architecture:
    """An architecture by name, with random weights and this many classes.

    Raises:
        UserError: neither library has it; the nearest name is told.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if architecture in names:
        return _from_torchvision(architecture, num_classes)
    try:
        import timm  # seconds, and optional
    except ImportError:
        more = "timm, which has more, is not installed: pip install timm"
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
    if name.startswith("vit_"):  # their position embedding is of one size
        options = {"image_size": weights.meta["min_size"][0]}
    network = torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options)
    layers = dict(network.named_modules())
    last = [n for n, layer in layers.items() if isinstance(layer, nn.Linear)]
    last = last or [n for n, layer in layers.items() if isinstance(layer, nn.Conv2d)]
    expects = weights.transforms()
    return Architecture(
        network,
        last[-1],
        TENSORFLOW_STATISTICS.get(name, tuple(expects.mean)),
        TENSORFLOW_STATISTICS.get(name, tuple(expects.std)),
        lambda: weights.get_state_dict(progress=False, check_hash=True),
        weights.url,
    )


def _from_timm(name: str, num_classes: int) -> Architecture:
    import timm

    network: Any = timm.create_model(name, pretrained=False, num_classes=num_classes)
    head = network.get_classifier()
    names = [n for n, layer in network.named_modules() if layer is head]
    if not names:
        raise UserError(f"model.architecture={name}: it has several heads, or none to replace")
    published: Any = network.pretrained_cfg

    def fetch() -> Mapping[str, Tensor]:
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # of each new attempt
        state: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
        return state

    origin = f"huggingface.co/{published.get('hf_hub_id')}"
    return Architecture(network, names[0], published["mean"], published["std"], fetch, origin)


def _sum_stem(backbone: nn.Module) -> str:
    """Make the first convolution read one channel; returns its weight's name."""
    for name, layer in backbone.named_modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight = nn.Parameter(layer.weight.detach().sum(1, keepdim=True))
            layer.in_channels = 1
            return f"{name}.weight"
    raise UserError("model=pretrained: this architecture takes no grey images")


def read_state_dict(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a .safetensors file, or of one that torch.save wrote; runs no code of it.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights={path}: there is no such file; expected default, none or a file"
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file  # comes with timm

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise UserError(f"model.weights={path}: pip install safetensors") from error
    except OSError as error:
        raise UserError(f"model.weights={path}: {error.strerror or error}") from error
    except Exception as error:  # each format has errors of its own for a file that is not of it
        raise UserError(f"model.weights={path}: no state dict can be read from it") from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        holds = ", ".join(map(str, list(state)[:3])) if isinstance(state, dict) else type(state)
        raise UserError(f"model.weights={path}: expected a state dict of tensors, it holds {holds}")
    return state


def _rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without auxiliary classifiers; densenet's layers, which files call norm.1, as norm1."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name): tensor
        for name, tensor in state.items()
        if not name.startswith(("aux1.", "aux2.", "AuxLogits."))
    }


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
