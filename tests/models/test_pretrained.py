"""Pretrained architectures: heads and sizes from the data, weights that fit or are refused, grey images."""

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

from conftest import Execute, composed, slow
from glimpse import precision
from glimpse.config.build import build
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.models.pretrained import Pretrained
from glimpse.runs.share import share_run
from glimpse.runs.trained import TrainedRun

# One small member of each family of torchvision, at an image size that it takes.
FAMILIES = {
    "alexnet": 64, "convnext_tiny": 32, "densenet121": 32, "efficientnet_b0": 32,
    "efficientnet_v2_s": 33, "googlenet": 32, "inception_v3": 75, "maxvit_t": 224, "mnasnet0_5": 32,
    "mobilenet_v2": 32, "mobilenet_v3_small": 32, "regnet_y_400mf": 32, "resnet18": 8,
    "resnext50_32x4d": 32, "shufflenet_v2_x0_5": 32, "squeezenet1_1": 32, "swin_t": 32,
    "swin_v2_t": 32, "vgg11": 32, "vit_b_16": 224, "wide_resnet50_2": 32,
}  # fmt: skip


def images_of(side: int, channels: int = 3, *, normalized: bool = False) -> ImageSpec:
    mean, std = ((0.4,), (0.2,)) if normalized else ((0.0,), (1.0,))
    names = tuple("abcde")
    return ImageSpec(5, names, channels, side, side, mean * channels, std * channels)


def saved(state: dict[str, torch.Tensor], folder: Path, name: str = "weights.pth") -> str:
    torch.save(state, folder / name)
    return str(folder / name)


def resnet_weights(num_classes: int = 1000) -> dict[str, torch.Tensor]:
    network = torchvision.models.resnet18(num_classes=num_classes)
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_every_family_is_tried() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    families = {torchvision.models.get_model_builder(name).__module__ for name in names}
    assert families == {torchvision.models.get_model_builder(n).__module__ for n in FAMILIES}


# Of torchvision's files that make another family here.
SECOND_OF_ITS_FILE = ("efficientnet_v2_s", "resnext50_32x4d", "swin_v2_t", "wide_resnet50_2")


@pytest.mark.parametrize(
    "architecture", [slow(a) if a in SECOND_OF_ITS_FILE else a for a in FAMILIES]
)
def test_the_head_is_the_last_layer_and_sized_from_the_data(architecture: str) -> None:
    side = FAMILIES[architecture]
    network = Pretrained(images_of(side), architecture=architecture, weights="none").eval()
    with torch.no_grad():
        features = network.features(torch.rand(2, 3, side, side))
        assert features.shape == (2, network.head.in_features)
        assert network(features).shape == (2, 5)


@pytest.mark.parametrize(
    "architecture",
    [
        "densenet121",
        "squeezenet1_1",
        slow("convnext_tiny"),
        slow("timm/repvgg_a0"),
        "timm/nf_resnet26",
    ],
)
def test_grey_images_go_in(architecture: str) -> None:
    network = Pretrained(images_of(32, channels=1), architecture=architecture, weights="none")
    assert network(torch.rand(2, 1, 32, 32)).shape == (2, 5)


def test_a_run_from_random_weights_goes_on_with_the_input_that_it_knows(
    execute: Execute, tmp_path: Path
) -> None:
    small = (
        "data=synthetic", "data.shape=[3,32,32]", "data.num_train=32", "data.num_val=16", "trainer=cpu",
        "model=pretrained", "trainer.max_epochs=1", "logger=none", "trainer.precision=32-true",
    )  # fmt: skip
    first = execute(*small, "model.weights=none", folder=tmp_path / "first")
    second = execute(*small, f"model.weights={first}", folder=tmp_path / "second")
    known = TrainedRun(first)
    exported = tmp_path / "shared" / "model.safetensors"
    exported.parent.mkdir()
    list(share_run(known, exported))
    images = torch.randn(4, 3, 32, 32)
    for source in (first, second, exported):
        network = Pretrained(known.spec, weights=str(source))
        network.load_weights()
        network.eval()
        expected = known if source == exported else TrainedRun(source)
        assert torch.allclose(network(images), expected.model(images), atol=1e-4)
        assert network.statistics[0] == pytest.approx(known.spec.mean, abs=1e-5)
        assert expected.model.statistics[1] == pytest.approx(known.spec.std, abs=1e-5)


@pytest.mark.parametrize("name", ["convnext_atto", "selecsls42", "resnet18"])
def test_the_librarys_names_are_converted_and_ours_kept(name: str) -> None:
    """Some networks of timm call a layer before the last one head.…"""
    pytest.importorskip("timm")
    network = Pretrained(images_of(32), architecture=f"timm/{name}", weights="none")
    own = {n: t for n, t in network.state_dict().items() if n not in ("scale", "shift")}
    assert set(network._own_names(network.library_weights())) == set(own)
    assert set(network._own_names(network.state_dict())) - {"scale", "shift"} == set(own)


def test_a_classifier_that_pools_is_replaced_behind_the_pooling() -> None:
    pytest.importorskip("timm")
    network = Pretrained(images_of(224), architecture="timm/sequencer2d_s", weights="none")
    assert network(torch.rand(1, 3, 224, 224)).shape == (1, 5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crossvit_tiny_240", "volo_d1_224", "efficientvim_m1"])
def test_networks_with_several_heads_are_refused(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"no single head|do not return one vector"):
        Pretrained(images_of(240), architecture=f"timm/{name}", weights="none")


def test_a_tag_that_timm_does_not_have_is_one_line() -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=r"Invalid pretrained tag \(nope\)"):
        Pretrained(images_of(32), architecture="timm/resnet18.nope", weights="none")


def test_timm_is_asked_for_what_torchvision_does_not_have() -> None:
    pytest.importorskip("timm")
    network = Pretrained(images_of(32), architecture="tf_efficientnet_lite0", weights="none")
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 5)
    theirs = Pretrained(images_of(32), architecture="timm/resnet18", weights="none")
    assert "timm" in type(theirs.backbone).__module__


@pytest.mark.parametrize("num_classes", [5, 1000])
def test_a_file_gives_the_networks_own_answers(tmp_path: Path, num_classes: int) -> None:
    theirs = torchvision.models.resnet18(num_classes=num_classes).eval()
    spec = images_of(32, normalized=True)
    weights = saved(theirs.state_dict(), tmp_path)
    network = Pretrained(spec, weights=weights).eval()
    network.load_weights()
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in [(0.485, 0.456, 0.406), (0.229, 0.224, 0.225)]
    )
    theirs.fc = theirs.fc if num_classes == 5 else torch.nn.Identity()
    ours = (
        network((pixels - 0.4) / 0.2)
        if num_classes == 5
        else network.features((pixels - 0.4) / 0.2)
    )
    torch.testing.assert_close(ours, theirs((pixels - mean) / std), rtol=1e-4, atol=1e-5)


def test_a_head_for_other_classes_starts_from_zero(tmp_path: Path) -> None:
    network = Pretrained(images_of(32), weights=saved(resnet_weights(), tmp_path))
    network.load_weights()
    assert not network.head.weight.any()


def test_grey_images_are_as_if_shown_three_times(tmp_path: Path) -> None:
    weights = saved(resnet_weights(), tmp_path)
    grey = Pretrained(images_of(32, channels=1), weights=weights).eval()
    colour = Pretrained(images_of(32), weights=weights).eval()
    grey.load_weights()
    colour.load_weights()
    image = torch.rand(2, 1, 32, 32)
    thrice = image.expand(-1, 3, -1, -1)
    torch.testing.assert_close(grey.features(image), colour.features(thrice), rtol=1e-4, atol=1e-5)


def test_the_two_networks_of_tensorflow_expect_their_own_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = torchvision.models.googlenet(aux_logits=True, init_weights=False)
    weights = torchvision.models.GoogLeNet_Weights.DEFAULT
    state = theirs.state_dict()
    monkeypatch.setattr(type(weights), "get_state_dict", lambda self, **_: state)
    theirs = torchvision.models.googlenet(weights=weights).eval()
    network = Pretrained(images_of(32), architecture="googlenet").eval()
    network.load_weights()
    theirs.fc = torch.nn.Identity()
    image = torch.rand(2, 3, 32, 32)
    normalised = (image - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    torch.testing.assert_close(network.features(image), theirs(normalised), rtol=1e-4, atol=1e-5)


def test_densenets_old_names_are_understood(tmp_path: Path) -> None:
    state = torchvision.models.densenet121().state_dict()
    old = {
        k.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): v for k, v in state.items()
    }
    assert old.keys() != state.keys()
    spec = images_of(32)
    network = Pretrained(spec, architecture="densenet121", weights=saved(old, tmp_path))
    network.load_weights()
    name = "features.denseblock1.denselayer1.conv2.weight"
    assert torch.equal(network.backbone.state_dict()[name], state[name])


def test_safetensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = resnet_weights()
    safetensors.save_file(state, tmp_path / "weights.safetensors")
    network = Pretrained(images_of(32), weights=str(tmp_path / "weights.safetensors"))
    network.load_weights()
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])


def without(state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {k: v for k, v in state.items() if k != name}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda s: s | {"bn1.weight": torch.zeros(3)}, "bn1.weight is 3, expected 64"),
        (
            lambda s: without(s, "layer1.0.conv2.weight"),
            "conv2.weight is missing, expected 64×64×3×3",
        ),
        (
            lambda s: s | {"layer1.7.weight": torch.zeros(2, 2)},
            "layer1.7.weight is 2×2, expected no such layer",
        ),
        (lambda s: {"epoch": 3}, "contains epoch, expected a state dict of tensors"),
        (lambda s: [1], "expected a state dict"),
    ],
)
def test_weights_that_do_not_fit(tmp_path: Path, changed: object, message: str) -> None:
    weights = saved(changed(resnet_weights()), tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as error:
        Pretrained(images_of(32), weights=weights).load_weights()
    assert "\n" not in str(error.value)


def test_a_file_that_is_missing_or_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        Pretrained(images_of(32), weights=str(tmp_path / "none.pth")).load_weights()
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("<html>")
        with pytest.raises(UserError, match=r"does not contain a readable state dict|pip install"):
            Pretrained(images_of(32), weights=str(tmp_path / name)).load_weights()


def test_a_download_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.models.ResNet18_Weights, "get_state_dict", fail)
    with pytest.raises(UserError, match=r"from https://\S+resnet18.*model.weights=<file>") as error:
        Pretrained(images_of(32)).load_weights()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [("resnet43", "resnet34"), ("tf_eficientnet_lite0", "tf_efficientnet_lite0")],
)
def test_a_misspelt_architecture_is_told_the_nearest(written: str, meant: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(UserError, match=f"did you mean {meant}"):
        Pretrained(images_of(32), architecture=written)


def test_an_image_size_that_an_architecture_does_not_take() -> None:
    with pytest.raises(UserError, match="images are 8×8, but vit_b_32 expects images of 224×224"):
        Pretrained(images_of(8), architecture="vit_b_32", weights="none")


def test_precision_sees_a_convnet() -> None:
    network = Pretrained(images_of(64), weights="none")
    chosen = precision.choose("auto", network, images_of(64), "cpu")
    assert chosen.memory_format is torch.channels_last


def test_a_resumed_run_and_a_checkpoint_need_no_weights_file(
    execute: Execute, tmp_path: Path
) -> None:
    weights = saved(resnet_weights(), tmp_path)
    options = (
        "data=synthetic", "data.shape=[1,16,16]", "data.num_train=20", "data.num_val=20",
        "model=pretrained", f"model.weights={weights}", "trainer=cpu", "logger=none",
    )  # fmt: skip
    folder = execute(*options, "trainer.max_epochs=1")
    Path(weights).unlink()
    execute(*options, "trainer.max_epochs=2", f"resume={folder}", folder=folder)
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    config, _ = composed(*options)
    network = build("model", config.model, images_of(16, channels=1))
    ours = {k.removeprefix("network."): v for k, v in checkpoint.items()}
    ours = {k: v for k, v in ours.items() if not k.startswith("head.")}
    assert set(ours) == {k for k in network.state_dict() if not k.startswith("head.")}


def test_the_real_weights_know_pets_from_noise(samples: Path) -> None:
    """The published classifier of 1,000 classes, kept where there are 1,000, is sure of a photo."""
    pytest.importorskip("timm")
    import zipfile

    from PIL import Image
    from torchvision.transforms.functional import pil_to_tensor

    names = tuple(map(str, range(1000)))
    spec = ImageSpec(1000, names, 3, 224, 224, (0.0,) * 3, (1.0,) * 3)
    weights = str(samples / "weights" / "tf_efficientnet_lite0.pth")
    network = Pretrained(spec, architecture="tf_efficientnet_lite0", weights=weights).eval()
    network.load_weights()
    with zipfile.ZipFile(samples / "data" / "oxford-iiit-pet-sample.zip") as zipped:
        files = [n for n in zipped.namelist() if "/pug_" in n]
        photos = [Image.open(zipped.open(n)).convert("RGB").resize((224, 224)) for n in files]
    images = torch.stack([pil_to_tensor(photo) for photo in photos]) / 255
    with torch.no_grad():
        answers = network(images).argmax(1)
    assert (answers == 254).float().mean() > 0.5  # ImageNet's class of pugs
