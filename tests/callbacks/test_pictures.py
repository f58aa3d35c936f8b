"""Pictures that a run leaves: which, when, of which weights, and how to leave them out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import Execute, composed, slow
from glimpse.callbacks import pictures
from glimpse.classifier import ImageClassifier
from glimpse.errors import UserError
from glimpse.insight import predictions
from glimpse.insight.predictions import Predictions, predict
from glimpse.runs.trained import TrainedRun

DRAWN = {
    "train_batch", "first_layer", "answers", "confusion", "most_confused", "top_losses", "curves",
}  # fmt: skip
SMALL = ("model=small_convnet", "trainer=cpu", "data.batch_size=64", "trainer.max_epochs=3")
ON = "callbacks.pictures.every_n_epochs=2"


def figures(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "figures").glob("*.png")}


def test_every_picture_is_in_the_folder_and_in_tensorboard(execute: Execute) -> None:
    folder = execute(*SMALL, ON)
    assert figures(folder) == DRAWN
    for path in (folder / "figures").glob("*.png"):
        with Image.open(path) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 2, path
        assert path.stat().st_size < 200_000
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    assert set(events.Tags()["images"]) >= DRAWN
    steps = [event.step for event in events.Images("first_layer")]
    assert len(steps) == 2  # after the first epoch and the second
    assert len(events.Images("answers")) == 2


@pytest.mark.gpu
def test_every_picture_of_a_gpu_is_in_the_folder(execute: Execute) -> None:
    assert figures(execute(*SMALL, "trainer=gpu", ON)) == DRAWN


def test_results_are_predicted_where_the_run_trained(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each evaluation, Lightning moves the classifier to the CPU."""
    moved: list[str] = []
    monkeypatch.setattr(ImageClassifier, "cpu", lambda self: moved.append("away") or self)
    monkeypatch.setattr(
        ImageClassifier, "to", lambda self, device: moved.append(str(device)) or self
    )
    monkeypatch.setattr(pictures, "predict", lambda *_, device: moved.append(f"on {device}"))
    monkeypatch.setattr(pictures, "_draw_mistakes", lambda *_: None)
    execute(*SMALL, ON)
    place = moved.index("on cpu")
    assert moved[place - 1] == "cpu"


@pytest.mark.parametrize(
    ("interval", "drawn"),
    [
        # Of the epochs 1, 2 and 4, with 22 batches each: at the first validation, and at the last
        # one of each epoch.
        ("trainer.val_check_interval=5", [5, 20, 42, 86]),
        slow("trainer.val_check_interval=0.5", [11, 22, 44, 88]),
        # Every 30 batches: the third epoch has one at 60, which is not drawn.
        slow("trainer.val_check_interval=30 trainer.check_val_every_n_epoch=null", [30]),
    ],
)
def test_validations_within_an_epoch_draw_at_its_last_one(
    execute: Execute, interval: str, drawn: list[int]
) -> None:
    folder = execute(
        "data=synthetic", "data.num_train=88", "data.num_val=8", "data.batch_size=4", "model=linear",
        "trainer=cpu", "trainer.max_epochs=4", "test=false", ON, *interval.split(),
    )  # fmt: skip
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    for tag in ("first_layer", "answers"):
        assert [event.step + 1 for event in events.Images(tag)] == drawn


def test_null_leaves_all_but_the_curves_out(execute: Execute) -> None:
    assert figures(execute(*SMALL, curves=True)) == {"curves"}


def test_null_leaves_any_callback_out() -> None:
    config, _ = composed("callbacks=[ema,early_stopping]", "callbacks.ema=null")
    assert config.callbacks.ema is None
    with pytest.raises(UserError, match=r"callbacks\.emma"):
        composed("callbacks=[ema]", "+callbacks.emma=null")


def test_pictures_change_no_number(execute: Execute, tmp_path: Path) -> None:
    def weights(folder: Path) -> dict[str, torch.Tensor]:
        saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        state: dict[str, torch.Tensor] = saved["state_dict"]
        return state

    options = (
        *SMALL,
        "model=convnet_bn",
        "model.dropout=0.3",
        "model.widths=[4,8]",
        "augment=crop_flip",
    )
    with_them = weights(execute(*options, ON, folder=tmp_path / "with"))
    without = weights(execute(*options, folder=tmp_path / "without"))
    assert all(torch.equal(with_them[name], without[name]) for name in without)


@pytest.mark.parametrize("more", [(), ("callbacks=[ema]", "callbacks.ema.decay=0.9")])
def test_the_result_is_of_the_kept_weights(
    execute: Execute, monkeypatch: pytest.MonkeyPatch, more: tuple[str, ...]
) -> None:
    seen: list[Predictions] = []
    monkeypatch.setattr(
        "glimpse.callbacks.pictures.draw_most_confused", lambda found, *_: seen.append(found)
    )
    monkeypatch.setattr("glimpse.callbacks.pictures._show", lambda *_: None)
    folder = execute(*SMALL, ON, *more)
    summary = json.loads((folder / "summary.json").read_text())
    assert seen[0].correct.mean() == pytest.approx(summary["metrics"]["val/acc"])
    assert (seen[0].predicted == TrainedRun(folder).predict("val").predicted).all()


def test_nothing_is_measured_where_validation_is_limited(execute: Execute) -> None:
    folder = execute(*SMALL, ON, "trainer.limit_val_batches=1")
    assert not figures(folder) & {"confusion", "most_confused", "top_losses"}


def test_features_have_no_images_of_their_own(execute: Execute, published_weights: None) -> None:
    folder = execute(
        "model=pretrained", "data=synthetic", "data.shape=[3,32,32]", "data.num_train=32",
        "data.num_val=16", "callbacks=[frozen_features]", "trainer=cpu", "trainer.max_epochs=1", ON,
    )  # fmt: skip
    assert {"confusion", "most_confused", "top_losses"} <= figures(folder)
    assert "answers" not in figures(folder)


def test_answers_of_several_processes_come_back_in_order(
    trained_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = TrainedRun(trained_run)
    whole = trained.predict("val")

    class Trainer:
        world_size, global_rank = 2, 0
        strategy = type("Strategy", (), {"root_device": torch.device("cpu")})

    def forward(images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = trained.network(images)
        return logits

    def share(rank: int) -> tuple[np.ndarray, np.ndarray]:
        found: list[tuple[np.ndarray, np.ndarray]] = []

        def keep(pair: tuple[np.ndarray, np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
            found.append(pair)
            raise StopIteration

        monkeypatch.setattr(predictions, "of_all_processes", keep)
        monkeypatch.setattr(Trainer, "global_rank", rank)
        with pytest.raises(StopIteration):
            predict(forward, trained.data, "val", device=trained.device)
        return found[0]

    trained.data.trainer = Trainer()
    trained.data.batches.train_with(trained.data.trainer)
    shares = [share(0), share(1)]
    assert len(shares[0][1]) == len(shares[1][1]) == len(whole) // 2
    monkeypatch.setattr(predictions, "of_all_processes", lambda _: shares)
    found = predict(forward, trained.data, "val", device=trained.device)
    assert (found.log_probabilities == whole.log_probabilities).all()


def test_every_n_epochs_is_checked() -> None:
    with pytest.raises(UserError, match="expected at least 1"):
        composed("callbacks.pictures.every_n_epochs=0")
