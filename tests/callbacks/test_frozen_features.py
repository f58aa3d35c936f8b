"""A linear probe: features made once, the backbone untouched, the checkpoint a whole network."""

import json
from pathlib import Path

import pytest
import torch
import torchvision

from conftest import Execute, composed
from glimpse.assembly import build_data
from glimpse.callbacks.frozen_features import FrozenFeatures
from glimpse.config.build import build
from glimpse.crash import CrashError
from glimpse.errors import UserError
from makers import MAKERS

ARCHITECTURE = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights, as if published."""
    path = tmp_path_factory.mktemp("weights") / "shufflenet.pth"
    torch.manual_seed(0)
    network = torchvision.models.get_model(ARCHITECTURE, weights=None)
    for _ in range(50):  # batch norm learns statistics, so that features differ between images
        network(torch.rand(8, 3, 1, 1).expand(-1, -1, 32, 32))
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def options(tmp_path: Path, published: Path) -> tuple[str, ...]:
    MAKERS["image_folder"](tmp_path / "data", per_class=10)
    return (
        "data=image_folder", f"data.root={tmp_path / 'data' / 'photos'}", "data.presize=32",
        "data.num_workers=1", "trainer=cpu", "trainer.precision=32-true", "trainer.max_epochs=10",
        "logger=none", "model=pretrained", f"model.architecture={ARCHITECTURE}", "optimizer.lr=0.1",
        f"model.weights={published}", "callbacks=[frozen_features]",
    )  # fmt: skip


def test_the_checkpoint_classifies_images(
    execute: Execute, options: tuple[str, ...], published: Path, tmp_path: Path
) -> None:
    folder = execute(*options)
    summary = json.loads((folder / "summary.json").read_text())
    config, _ = composed(*options, f"data_dir={tmp_path / 'data'}")
    data = build_data(config)
    network = build("model", config.model, data.spec).eval()
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    network.load_state_dict({k.removeprefix("network."): v for k, v in checkpoint.items()})
    before = torch.load(published, weights_only=True)
    for name, tensor in network.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    correct = 0
    for batch in data.batches.loader("val"):
        with torch.no_grad():
            answers = network(data.batches.to_network(batch).images).argmax(1)
        correct += int((answers == batch.labels).sum())
    assert correct / len(data.labels("val")) == pytest.approx(summary["metrics"]["val/acc"])
    assert summary["metrics"]["val/acc"] > 0.6


def test_features_are_kept_on_disk_and_used_again(
    execute: Execute, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = execute(*options, folder=tmp_path / "first")
    [file] = (tmp_path / "data" / ".cache").glob("features-*.npz")

    def refuse(*_: object) -> None:
        raise AssertionError("the features were computed again")

    with monkeypatch.context() as patch:
        patch.setattr(FrozenFeatures, "_compute", refuse)
        again = execute(*options, folder=tmp_path / "again")
        with pytest.raises(CrashError, match="computed again"):  # other images in each part
            execute(*options, "data.normalize=dataset", folder=tmp_path / "other")
    rows = [(f / "metrics.csv").read_text().splitlines()[-1].split(",")[:7] for f in (first, again)]
    assert rows[0] == rows[1]
    file.write_bytes(file.read_bytes()[:100])
    execute(*options, folder=tmp_path / "repaired")
    assert file.stat().st_size > 100


def test_a_resumed_probe_equals_an_unbroken_one(
    execute: Execute, options: tuple[str, ...], tmp_path: Path
) -> None:
    options = (*options, "scheduler=constant")
    unbroken = execute(*options, "trainer.max_epochs=3", folder=tmp_path / "unbroken")
    folder = execute(*options, "trainer.max_epochs=1", folder=tmp_path / "resumed")
    execute(*options, "trainer.max_epochs=3", f"resume={folder}", folder=folder)
    states = [
        torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for f in (unbroken, folder)
    ]
    for name in states[0]:
        assert torch.equal(states[0][name], states[1][name]), name


def test_in_double_precision(execute: Execute, options: tuple[str, ...]) -> None:
    chosen = [o for o in options if not o.startswith("trainer.precision")]
    folder = execute(*chosen, "trainer.precision=64-true", "trainer.max_epochs=1")
    assert json.loads((folder / "summary.json").read_text())["status"] == "finished"


def test_augmentation_is_refused(execute: Execute, options: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"cannot be augmented: type augment=none"):
        execute(*options, "augment=flip")


def test_test_time_flip_is_refused(execute: Execute, options: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"type tta=null"):
        execute(*options, "tta=flip")
