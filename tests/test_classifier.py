"""Test-time views: metrics of their own, beside the plain ones."""

import json
from pathlib import Path

import pytest
import torch

from conftest import Execute, composed
from glimpse.assembly import build_data
from glimpse.config.build import build
from glimpse.errors import UserError

TINY = (
    "data=synthetic", "data.shape=[3,8,8]", "data.num_train=120", "data.num_val=60",
    "data.num_classes=6", "data.batch_size=16", "model=mlp", "model.widths=[16]", "trainer=cpu",
    "trainer.max_epochs=1",
)  # fmt: skip


def read_metrics(folder: Path) -> dict[str, float]:
    metrics: dict[str, float] = json.loads((folder / "summary.json").read_text())["metrics"]
    return metrics


def views(images: torch.Tensor) -> list[torch.Tensor]:
    """The six views of tta=flip_shift, the two without a shift twice: their weight is one half."""
    place = torch.arange(8)
    before, after = (
        (place - 1).abs(),
        7 - (6 - place).abs(),
    )  # of the neighbours, mirrored at the ends
    shifted = [images[:, :, i][:, :, :, i] for i in (before, after)]
    unflipped = [images, images, *shifted]
    return [*unflipped, *(view.flip(3) for view in unflipped)]


@pytest.mark.parametrize("tta", ["flip", "flip_shift"])
def test_views_are_measured_beside_the_plain_metrics(
    execute: Execute, tmp_path: Path, capsys: pytest.CaptureFixture[str], tta: str
) -> None:
    plain = read_metrics(execute(*TINY, folder=tmp_path / "plain"))
    assert "averaged" not in capsys.readouterr().out
    folder = execute(*TINY, f"tta={tta}")
    metrics = read_metrics(folder)
    names = {f"{s}/{m}_{tta}" for s in ("val", "test") for m in ("loss", "acc", "top5")}
    assert {n: v for n, v in metrics.items() if n not in names} == plain
    config, _ = composed(*TINY)
    data = build_data(config)
    network = build("model", config.model, data.spec).eval()
    best = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    network.load_state_dict({n.removeprefix("network."): v for n, v in best.items()})
    printed = capsys.readouterr().out
    for split in ("val", "test"):
        batches = [data.batches.to_network(batch) for batch in data.batches.loader(split)]
        images, labels = (torch.cat([b[i] for b in batches]) for i in (0, 1))
        with torch.no_grad():
            seen = [images, images.flip(3)] if tta == "flip" else views(images)
            logits = torch.stack([network(view) for view in seen]).mean(0)
        accuracy = (logits.argmax(1) == labels).double().mean().item()
        assert metrics[f"{split}/acc_{tta}"] == pytest.approx(accuracy)
        loss = torch.nn.functional.cross_entropy(logits, labels).item()
        assert metrics[f"{split}/loss_{tta}"] == pytest.approx(loss, rel=1e-5)
        assert metrics[f"{split}/loss_{tta}"] != metrics[f"{split}/loss"]
        assert f"{split:5} accuracy {accuracy:.4f}  averaged over views (tta={tta})" in printed


def test_views_without_the_final_measurement_is_refused() -> None:
    with pytest.raises(UserError, match="test=false skips"):
        composed("tta=flip", "test=false")
