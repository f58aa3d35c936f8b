"""`glimpse export --to safetensors`: plain libraries load the weights, and the card is the Hub's."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from safetensors.torch import load_file

from conftest import Execute
from glimpse.errors import UserError
from glimpse.runs.export import images_to_compare
from glimpse.runs.share import CARD, share_run
from glimpse.runs.trained import TrainedRun
from glimpse.streams import printable
from makers import make_image_folder

SMALL = (
    "data=synthetic", "data.num_train=16", "data.num_val=12", "trainer=cpu", "trainer.max_epochs=1",
    "logger=none", "optimizer.lr=0.001",
)  # fmt: skip


def trained(execute: Execute, architecture: str, *, shape: str = "[3,32,32]") -> TrainedRun:
    pretrained = ("model=pretrained", f"model.architecture={architecture}", "model.weights=none")
    return TrainedRun(execute(*SMALL, f"data.shape={shape}", *pretrained))


def test_plain_torchvision_gives_the_same_answers(execute: Execute, tmp_path: Path) -> None:
    run = trained(execute, "shufflenet_v2_x0_5")
    lines = list(share_run(run, tmp_path / "model.safetensors"))
    assert "validation images: probabilities of torchvision's" in lines[0]
    num_classes = run.spec.num_classes
    network = torchvision.models.get_model("shufflenet_v2_x0_5", num_classes=num_classes)
    network.load_state_dict(load_file(tmp_path / "model.safetensors"))
    network.eval()
    images = torch.from_numpy(run.data.stored_images("val", np.arange(4)))
    with torch.no_grad():
        seen = run.to_network(images)
        torch.testing.assert_close(network(seen), run.model(seen), rtol=1e-4, atol=1e-5)


def test_without_the_data_networks_are_compared_on_random_images(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_run: TrainedRun) -> None:
        raise UserError("data.root=photos: no such folder")

    monkeypatch.setattr(TrainedRun, "data", property(gone))
    run = TrainedRun(trained_run)
    images, which = images_to_compare(run)
    assert images.shape == (256, *run.stored_size, run.spec.channels)
    assert "random images, because the run's data cannot be read" in which


def test_a_network_for_grey_images_takes_the_image_three_times(
    execute: Execute, tmp_path: Path
) -> None:
    run = trained(execute, "shufflenet_v2_x0_5", shape="[1,32,32]")
    assert list(share_run(run, tmp_path / "model.safetensors"))
    assert "the same in each of three channels" in (tmp_path / CARD).read_text()


def test_the_call_on_the_card_builds_the_network(execute: Execute, tmp_path: Path) -> None:
    run = trained(execute, "googlenet", shape="[3,64,64]")
    list(share_run(run, tmp_path / "model.safetensors"))
    card = (tmp_path / CARD).read_text()
    [call] = [line for line in card.splitlines() if line.startswith("network = ")]
    names: dict[str, torch.nn.Module] = {}
    exec(call, {"torchvision": torchvision}, names)
    names["network"].load_state_dict(load_file(tmp_path / "model.safetensors"))


@pytest.mark.slow
def test_plain_timm_loads_them(execute: Execute, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    run = trained(execute, "timm/mobilenetv3_small_050")
    assert list(share_run(run, tmp_path / "model.safetensors"))
    timm.create_model(
        "mobilenetv3_small_050",
        num_classes=run.spec.num_classes,
        checkpoint_path=str(tmp_path / "model.safetensors"),
    )
    assert "library_name: timm" in (tmp_path / CARD).read_text()


def test_the_card_is_valid_and_tells_results_and_classes(trained_run: Path, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    run = TrainedRun(trained_run)
    lines = list(share_run(run, tmp_path / "model.safetensors"))
    assert "named as in glimpse.models.small_convnet.SmallConvNet" in lines[-1]
    card = hub.ModelCard.load(tmp_path / CARD)
    assert card.data.pipeline_tag == "image-classification"
    [value] = [r.metric_value for r in card.data.eval_results if "test" in r.metric_name]
    assert value == pytest.approx(run.metrics["test/acc"], abs=1e-4)
    assert '"3", "4"' in card.text
    state = load_file(tmp_path / "model.safetensors")
    run.model.load_state_dict(state)


def test_a_card_claims_nothing_for_other_weights(trained_run: Path, tmp_path: Path) -> None:
    last = TrainedRun(trained_run / "checkpoints" / "last.ckpt")
    list(share_run(last, tmp_path / "last.safetensors"))
    assert "| accuracy" not in (tmp_path / CARD).read_text()


def test_a_card_says_how_an_image_is_fitted(execute: Execute, tmp_path: Path) -> None:
    fit = ("data.presize=[24,40]", "data.fit=pad", "data.size=[16,16]")
    make_image_folder(tmp_path / "data")
    photos = ("data=image_folder", f"data.root={tmp_path / 'data' / 'photos'}")
    run = execute(*photos, *fit, "model=linear", "trainer=cpu", "trainer.max_epochs=1")
    list(share_run(TrainedRun(run), tmp_path / "model.safetensors"))
    text = " ".join((tmp_path / CARD).read_text().split())
    assert "within 40×24 pixels and centre it on black" in text
    assert "then resize it to 16×16" in text


def test_a_readme_of_somebody_else_is_left_alone(trained_run: Path, tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("# My project\n")
    with pytest.raises(UserError, match="already exists: type --out"):
        list(share_run(TrainedRun(trained_run), tmp_path / "model.safetensors"))
    assert (tmp_path / CARD).read_text() == "# My project\n"


def test_a_card_shows_names_from_a_record_as_text(trained_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained_run, tmp_path / "run"))
    summary = json.loads((folder / "summary.json").read_text())
    evil = "<img src=x onerror=alert(1)> [a](javascript:b)\n---\n"
    (folder / "summary.json").write_text(json.dumps(summary | {"data": evil}))
    list(share_run(TrainedRun(folder), tmp_path / "model.safetensors"))
    _, metadata, text = (tmp_path / CARD).read_text().split("---\n", 2)
    assert yaml.safe_load(metadata)["model-index"][0]["results"][0]["dataset"]["name"] == printable(
        evil
    )
    [heading] = [line for line in text.splitlines() if line.startswith("# ")]
    assert r"\<img src=x onerror=alert(1)\> \[a\](javascript:b)\\n---\\n" in heading
