"""A run, from its command to its folder."""

import json
import math
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from conftest import Execute, choices, composed, slow
from folders import read_rows, read_summary
from glimpse.assembly import build_data
from glimpse.classifier import ImageClassifier
from glimpse.data.loader import Batch
from glimpse.data.spec import ImageSpec
from glimpse.distributed.place import Place
from glimpse.errors import DivergedError, UserError
from glimpse.models.linear import Linear
from glimpse.run import run
from glimpse.trainer import build_trainer

TINY = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=60", "data.num_val=30",
    "data.num_classes=6", "data.batch_size=16", "model=linear", "trainer=cpu",
    "trainer.max_epochs=2",
)  # fmt: skip


def test_run_folder_has_what_scripts_rely_on(execute: Execute) -> None:
    folder = execute(*TINY, "seed=3", curves=True)
    summary = read_summary(folder)
    assert summary["status"] == "finished"
    assert (summary["data"], summary["model"], summary["seed"]) == ("synthetic", "linear", 3)
    assert summary["epochs"] == 2
    assert summary["parameters"] == 65 * 6
    assert summary["majority_acc"] == pytest.approx(5 / 30)
    assert summary["images_per_second"] > 0
    names = {f"{s}/{m}" for s in ("train", "val", "test") for m in ("loss", "acc")}
    assert set(summary["metrics"]) == names | {"val/top5", "test/top5"}
    rows = read_rows(folder)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[summary["best_epoch"] - 1]["val/acc"]) == summary["metrics"]["val/acc"]
    assert json.loads((folder / "environment.json").read_text())["versions"]["torch"]
    assert (folder / "figures" / "curves.png").exists()
    assert list((folder / "tensorboard").glob("events*"))


def test_checkpoint_is_plain_data_with_config_and_spec(execute: Execute) -> None:
    folder = execute(*TINY)
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert ImageSpec.from_dict(checkpoint["glimpse"]["spec"]).num_classes == 6
    assert checkpoint["glimpse"]["config"]["data"]["batch_size"] == 16
    assert set(checkpoint["state_dict"]) == {"network.head.weight", "network.head.bias"}


def test_reported_training_accuracy_is_the_best_weights_in_evaluation_mode(
    execute: Execute,
) -> None:
    options = (*TINY, "model=convnet_bn", "model.widths=[8]", "model.hidden=8", "model.dropout=0.5")
    folder = execute(*options)
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    config, _ = composed(*options)
    from glimpse.config.build import build

    data = build_data(config)
    network = build("model", config.model, data.spec).eval()
    weights = {n.removeprefix("network."): v for n, v in checkpoint["state_dict"].items()}
    network.load_state_dict(weights)
    batches = [data.batches.to_network(batch) for batch in data.batches.loader("train")]
    with torch.no_grad():
        right = sum((network(b.images).argmax(1) == b.labels).sum().item() for b in batches)
    assert read_summary(folder)["metrics"]["train/acc"] == pytest.approx(right / 60)


def test_a_limit_of_test_batches_leaves_the_other_splits_whole(
    execute: Execute, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (*TINY, "tta=flip", "optimizer.lr=0.1")
    whole = read_summary(execute(*options))
    limited = read_summary(
        execute(*options, "trainer.limit_test_batches=1", folder=tmp_path / "limited")
    )
    of_test = {name for name in whole["metrics"] if name.startswith("test/")}
    for name in set(whole["metrics"]) - of_test:
        assert limited["metrics"][name] == whole["metrics"][name]
    assert limited["metrics"]["test/loss"] != whole["metrics"]["test/loss"]
    assert limited["measured_images"] == {"test": 16}
    assert "measured_images" not in whole
    printed = capsys.readouterr().out
    assert "on 16 of 30 images" in " ".join(printed.split())


def test_a_limit_of_validation_batches_holds_for_its_views_too(execute: Execute) -> None:
    folder = execute(*TINY, "tta=flip", "trainer.limit_val_batches=1", "optimizer.lr=0.1")
    summary = read_summary(folder)
    best = read_rows(folder)[summary["best_epoch"] - 1]
    assert summary["metrics"]["val/acc"] == float(best["val/acc"])
    assert summary["measured_images"] == {"val": 16}


@pytest.mark.parametrize(
    ("scheduler", "rates"),
    [("step scheduler.every=2", [0.1, 0.1, 0.01, 0.01]), ("constant", [0.1] * 4)],
)
def test_the_rate_of_an_epoch_is_that_of_its_last_step(
    scheduler: str, rates: list[float], execute: Execute
) -> None:
    name, *settings = scheduler.split()
    folder = execute(
        *TINY, f"scheduler={name}", *settings, "trainer.max_epochs=4", "optimizer.lr=0.1"
    )
    assert [float(row["lr"]) for row in read_rows(folder)] == pytest.approx(rates)


def test_no_logger_still_leaves_metrics(execute: Execute) -> None:
    folder = execute(*TINY, "logger=none", "test=false")
    assert len(read_rows(folder)) == 2
    assert not (folder / "tensorboard").exists()
    assert "test/acc" not in read_summary(folder)["metrics"]


def test_a_run_without_a_test_set_says_how_to_get_one(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    execute("model=linear", "trainer.max_epochs=1", "data.val_fraction=0", "logger=none")
    assert "is optimistic (data.val_fraction=0.2 makes one)" in capsys.readouterr().out


def test_a_run_that_trains_nothing_says_so(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(*TINY, "trainer.limit_train_batches=0")
    assert "trainer.limit_train_batches=0 trains nothing: the accuracy" in capsys.readouterr().out


def test_fast_dev_run_writes_a_summary_and_no_checkpoint(execute: Execute) -> None:
    folder = execute(*TINY, "trainer.fast_dev_run=true")
    assert read_summary(folder)["status"] == "finished"
    assert not (folder / "checkpoints").exists()


def test_check_pushes_a_batch_and_leaves_nothing(
    execute: Execute, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = execute(*TINY, "check=true")
    assert list(folder.iterdir()) == []
    printed = capsys.readouterr().out
    assert "forward and backward: loss" in printed
    assert "390" in printed  # parameters
    assert "an epoch is" not in printed  # there is none


def test_failed_run_says_why_in_its_summary(execute: Execute, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="22×22 or larger"):
        execute(*TINY, "model=convnet_template")
    summary = read_summary(tmp_path / "run")
    assert summary["status"] == "failed"
    assert "22×22" in summary["error"]


def test_a_loss_that_is_not_finite_stops_the_run(execute: Execute, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"diverged .*finite.*task=lr_find"):
        execute(*TINY, "optimizer=sgd", "optimizer.lr=1e38", "scheduler=constant")
    assert read_summary(tmp_path / "run")["status"] == "failed"
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    if best.exists():
        state = torch.load(best, weights_only=True)["state_dict"]
        assert all(value.isfinite().all() for value in state.values())


def test_gpu_asked_for_where_there_is_none(execute: Execute) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(UserError, match=r"type trainer\.accelerator=cpu"):
        execute(*TINY, "trainer=gpu")


@pytest.mark.parametrize("devices", ["-1", "[0]"])
def test_devices_that_a_cpu_does_not_have(execute: Execute, devices: str) -> None:
    with pytest.raises(UserError, match=r"type trainer\.devices=<number of processes>$"):
        execute(*TINY, "trainer=cpu", f"trainer.devices={devices}")


def test_overfit_batches_repeats_the_same_batch(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    labels: list[int] = []
    step = ImageClassifier.training_step

    def spy(self: ImageClassifier, batch: Batch, batch_idx: int) -> Tensor:
        seen.append(batch.images.clone())
        labels.extend(batch.labels.tolist())
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ImageClassifier, "training_step", spy)
    execute(*TINY, "trainer.overfit_batches=1", "augment=crop_flip", "trainer.max_epochs=3")
    assert len(seen) == 3
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert len(set(labels)) > 1  # a batch of one class would say nothing


def test_the_same_seed_gives_the_same_bits_and_another_does_not(
    execute: Execute, tmp_path: Path
) -> None:
    options = (*TINY, "augment=flip", "logger=none")
    first = execute(*options, folder=tmp_path / "a")
    again = execute(*options, folder=tmp_path / "b")
    other = execute(*options, "seed=1", folder=tmp_path / "c")
    losses = [[row["train/loss"] for row in read_rows(folder)] for folder in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]


def test_metrics_are_those_of_torchmetrics(execute: Execute) -> None:
    from torchmetrics.functional.classification import multiclass_accuracy

    folder = execute(*TINY)
    config, _ = composed(*TINY)
    data = build_data(config)
    weights = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    batches = [data.batches.to_network(batch) for batch in data.batches.loader("test")]
    logits = torch.cat(
        [torch.nn.functional.linear(b.images.flatten(1), *weights.values()) for b in batches]
    )
    labels = torch.cat([b.labels for b in batches])
    metrics = read_summary(folder)["metrics"]
    for name, top_k in (("test/acc", 1), ("test/top5", 5)):
        expected = multiclass_accuracy(logits, labels, 6, average="micro", top_k=top_k)
        assert metrics[name] == pytest.approx(expected.item())
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert metrics["test/loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_validation_several_times_an_epoch(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice as many, at the end of each half; each can be the best."""
    validated: list[tuple[int, int]] = []
    finish = ImageClassifier.on_validation_epoch_end

    def noted(self: ImageClassifier) -> None:
        validated.append((self.trainer.current_epoch, self.trainer.global_step))
        finish(self)

    monkeypatch.setattr(ImageClassifier, "on_validation_epoch_end", noted)
    folder = execute(*TINY, "trainer.val_check_interval=0.5")
    assert validated == [(0, 2), (0, 4), (1, 6), (1, 8)]
    assert [row["epoch"] for row in read_rows(folder)] == ["1", "2"]


@pytest.mark.filterwarnings("ignore:.*Profiler:UserWarning")  # on how much it recorded
@pytest.mark.parametrize("profiler", ["simple", "advanced", "pytorch"])
def test_a_profile_is_written_into_the_folder(execute: Execute, profiler: str) -> None:
    options = ("trainer.max_epochs=1", "data.num_train=200")
    folder = execute(*TINY, *options, f"trainer.profiler={profiler}")
    [profile] = folder.glob("fit-profile*.txt")
    assert len(profile.read_text().splitlines()) > 10


@pytest.mark.parametrize(
    ("duration", "message"),
    [
        ("00:00:00:00", "the time limit ended the training before its first step"),
        ("00:00:10:00", None),
    ],
)
def test_a_time_limit_that_ends_a_run_is_said(
    execute: Execute, capsys: pytest.CaptureFixture[str], duration: str, message: str | None
) -> None:
    execute(*TINY, f"trainer.max_time='{duration}'")
    out = capsys.readouterr().out
    assert message in out if message else "time limit" not in out


def test_accumulated_gradients_step_once_for_several_batches(execute: Execute) -> None:
    folder = execute(*TINY, "trainer.accumulate_grad_batches=2")
    assert [row["step"] for row in read_rows(folder)] == ["2", "4"]


def test_a_last_batch_of_one_image_trains_with_batch_norm(execute: Execute) -> None:
    options = ("data.num_train=33", "model=convnet_bn", "model.widths=[4]", "model.hidden=4")
    folder = execute(*TINY, *options, "data.num_val=17")
    assert read_summary(folder)["status"] == "finished"


def test_a_higher_max_epochs_extends_a_finished_run(execute: Execute) -> None:
    folder = execute(*TINY)
    execute(*TINY, "trainer.max_epochs=4", f"resume={folder}", folder=folder)
    assert [row["epoch"] for row in read_rows(folder)] == ["1", "2", "3", "4"]
    assert read_summary(folder)["epochs"] == 4


@pytest.mark.parametrize(
    ("override", "message"),
    [("data.classes=[class 0,class 1]", "6 classes"), ("data.split_seed=1", "different data")],
)
def test_resume_on_other_data_is_refused(execute: Execute, override: str, message: str) -> None:
    folder = execute(*TINY)
    with pytest.raises(UserError, match=message):
        execute(*TINY, override, f"resume={folder}", folder=folder)


@pytest.mark.parametrize("damage", ["truncated", "one flipped bit", "gone"])
def test_resume_from_a_damaged_checkpoint(
    execute: Execute, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = execute(*TINY)
    last = folder / "checkpoints" / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "truncated":
        last.write_bytes(content[: len(content) // 2])
    elif damage == "one flipped bit":
        weights = torch.load(last, weights_only=True)["state_dict"]["network.head.weight"]
        content[content.find(weights.numpy().tobytes())] ^= 1
        last.write_bytes(content)
    else:
        last.unlink()
    execute(*TINY, "trainer.max_epochs=3", f"resume={folder}", folder=folder)
    assert read_rows(folder)[-1]["epoch"] == "3"
    if damage != "gone":
        assert "damaged; resuming from best.ckpt" in capsys.readouterr().out


def test_resume_before_the_first_checkpoint_begins_and_says_so(
    execute: Execute, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    execute(*TINY, f"resume={tmp_path / 'run'}")
    assert "no checkpoint yet" in capsys.readouterr().out
    checkpoints = sorted((tmp_path / "run" / "checkpoints").iterdir())
    for path in checkpoints:
        path.write_bytes(b"broken")
    with pytest.raises(UserError, match=r"can be used \(last\.ckpt, best\.ckpt\): .* damaged"):
        execute(*TINY, f"resume={tmp_path / 'run'}")


@pytest.mark.parametrize("scheduler", ["constant", "step", "cosine"])
def test_resume_takes_new_settings(execute: Execute, tmp_path: Path, scheduler: str) -> None:
    folder = execute(*TINY, "scheduler=constant", "optimizer.lr=0.1")
    new = (f"scheduler={scheduler}", "optimizer.lr=0.01", "trainer.max_epochs=4")
    execute(*TINY, *new, f"resume={folder}", folder=folder)
    whole = execute(*TINY, *new, folder=tmp_path / "whole")
    rates = [[float(row["lr"]) for row in read_rows(f)] for f in (folder, whole)]
    assert rates[0][:2] == [0.1, 0.1]
    assert rates[0][2:] == pytest.approx(rates[1][2:])


@pytest.mark.parametrize(
    ("override", "message"),
    [("model=mlp", "a different model"), ("optimizer=sgd", "a different optimizer")],
)
def test_resume_with_another_network_is_refused(
    execute: Execute, override: str, message: str
) -> None:
    folder = execute(*TINY)
    with pytest.raises(UserError, match=message):
        execute(*TINY, override, f"resume={folder}", folder=folder)


def test_a_validation_every_other_epoch_is_not_written_twice(execute: Execute) -> None:
    folder = execute(*TINY, "trainer.check_val_every_n_epoch=2", "trainer.max_epochs=4")
    assert [bool(row["val/acc"]) for row in read_rows(folder)] == [False, True, False, True]


def test_a_run_without_an_end_has_no_onecycle(execute: Execute) -> None:
    with pytest.raises(UserError, match=r"type trainer\.max_epochs"):
        execute(*TINY, "trainer.max_epochs=-1")
    folder = execute(*TINY, "trainer.max_epochs=-1", "trainer.max_steps=4")
    assert read_summary(folder)["epochs"] == 1


def test_plateau_lowers_the_rate(execute: Execute) -> None:
    options = ("scheduler=plateau", "scheduler.patience=0", "optimizer=sgd", "optimizer.lr=1e-5")
    folder = execute(*TINY, *options, "trainer.max_epochs=4")
    rates = [float(row["lr"]) for row in read_rows(folder)]
    assert rates[-1] < rates[0]
    assert all(math.isfinite(rate) for rate in rates)


def test_a_plateau_of_torch_watches_the_loss_of_the_validation(tmp_path: Path) -> None:
    config, _ = composed(*TINY, "optimizer=sgd", "optimizer.lr=1e-5", "trainer.max_epochs=4")
    config.scheduler = {
        "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau", "patience": 0, "threshold": 0.5,
    }  # fmt: skip
    run(config, tmp_path / "run", {"data": "digits", "model": "linear"})
    rates = [float(row["lr"]) for row in read_rows(tmp_path / "run")]
    assert rates[-1] < rates[0]


def test_a_plateau_of_torch_watches_what_its_file_names(tmp_path: Path) -> None:
    config, _ = composed(*TINY, "optimizer=sgd", "optimizer.lr=1e-5", "trainer.max_epochs=4")
    plateau = {
        "_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau",
        "patience": 9,
        "mode": "max",
    }
    config.scheduler = plateau
    with pytest.raises(UserError, match="add monitor: val/acc to the scheduler's YAML file"):
        run(config, tmp_path / "wrong", {"data": "digits", "model": "linear"})
    config.scheduler = plateau | {"monitor": "val/acc"}
    run(config, tmp_path / "run", {"data": "digits", "model": "linear"})
    assert read_rows(tmp_path / "run")[-1]["lr"] == "1e-05"


@pytest.mark.parametrize("option", ["trainer.max_epochs=0", "trainer.fast_dev_run=true"])
def test_only_curves_that_exist_are_named(
    execute: Execute, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    execute(*TINY, "logger=none", option, curves=True)
    assert "curves:" not in capsys.readouterr().out
    folder = execute(*TINY, "logger=none", curves=True)
    assert f"curves: {folder / 'figures' / 'curves.png'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer.val_check_interval=100"],
            r"trainer.val_check_interval=100: an epoch has only 4 batches: type a lower number",
        ),
        (
            ["callbacks=[time_limit]", "callbacks.time_limit.duration=12h"],
            "callbacks lightning.pytorch.callbacks.Timer rejected duration=12h",
        ),
        (
            ["callbacks=[early_stopping]", "callbacks.early_stopping.mode=up"],
            "EarlyStopping rejected mode=up: `mode` can be min, max, got up",
        ),
        (["scheduler=plateau", "scheduler.factor=2"], "scheduler.factor=2: expected at most 0.999999"),
    ],
)  # fmt: skip
def test_what_lightning_or_torch_reject_is_one_line(
    execute: Execute, overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as error:
        execute(*TINY, *overrides)
    assert "\n" not in str(error.value)


ON_EACH_DEVICE = pytest.mark.parametrize(
    "trainer", ["cpu", pytest.param("gpu", marks=pytest.mark.gpu)]
)


# Variants of others, of which the default tests only compose the configuration.
VARIANTS = {
    "birds_from_airplanes_convnet", "birds_from_airplanes_crops", "birds_from_airplanes_deep",
    "birds_from_airplanes_mse", "cifar10_best", "imagewoof_fast", "mnist_fast", "sign_language_linear",
    "sign_language_small_convnet", "tiny_imagenet_batchnorm", "tiny_imagenet_best", "tiny_imagenet_dropout",
    "tiny_imagenet_resnet18",
}  # fmt: skip


@ON_EACH_DEVICE
@pytest.mark.usefixtures("published_weights")
@pytest.mark.parametrize(
    "experiment", [slow(name) if name in VARIANTS else name for name in choices("experiment")]
)
def test_every_experiment_runs_on_synthetic_images(
    execute: Execute, experiment: str, trainer: str
) -> None:
    options = ("data=synthetic", "data.num_train=64", "data.num_val=32", "data.batch_size=16")
    folder = execute(
        f"experiment={experiment}", *options, f"trainer={trainer}", "trainer.fast_dev_run=true"
    )
    assert read_summary(folder)["status"] == "finished"


NEEDS_A_GPU = {"ddp": "gpu", "gpu": "gpu", "mps": "mps"}


@pytest.mark.parametrize("trainer", choices("trainer"))
def test_lightning_makes_the_trainer_that_was_chosen(trainer: str, tmp_path: Path) -> None:
    """All its arguments are accepted; where the device is missing, the accelerator and nothing else is
    refused."""
    config, _ = composed(f"trainer={trainer}", "trainer.max_epochs=3")
    needs = NEEDS_A_GPU.get(trainer)
    is_here = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if needs and not is_here[needs]:
        with pytest.raises(UserError, match=f"(?i)trainer.*{needs}"):
            build_trainer(config, "32-true", [], tmp_path, [], place=Place())
        config.trainer.accelerator = "cpu"
    made = build_trainer(config, "32-true", [], tmp_path, [], place=Place())
    assert made.max_epochs == 3
    assert made.world_size == (2 if trainer == "ddp_cpu" else 1)
    assert isinstance(made.strategy, DDPStrategy if "ddp" in trainer else SingleDeviceStrategy)


@pytest.mark.parametrize(
    ("loss", "optimizer"),
    [
        case if "cross_entropy" in case or "adam" in case else slow(*case)
        for loss in choices("loss")
        for optimizer in choices("optimizer")
        for case in [(loss, optimizer)]
    ],
)
def test_losses_and_optimizers_learn(execute: Execute, loss: str, optimizer: str) -> None:
    rate = 1.0 if optimizer == "sgd" else 0.05
    options = (
        f"loss={loss}",
        f"optimizer={optimizer}",
        f"optimizer.lr={rate}",
        "data.num_train=240",
    )
    folder = execute(*TINY, *options, "trainer.max_epochs=4", "logger=none")
    assert read_summary(folder)["metrics"]["test/acc"] > 0.5


NEED_WEIGHTS = ("finetune", "frozen_features")


@pytest.mark.usefixtures("published_weights")
@pytest.mark.parametrize("callbacks", choices("callbacks"))
def test_callbacks_are_switched_on_by_name(execute: Execute, callbacks: str) -> None:
    model = ("model=pretrained",) if callbacks in NEED_WEIGHTS else ()
    folder = execute(*TINY, *model, f"callbacks=[{callbacks}]", "trainer.max_epochs=3")
    assert read_summary(folder)["status"] == "finished"


def test_early_stopping_stops(execute: Execute) -> None:
    options = ("callbacks=[early_stopping]", "callbacks.early_stopping.patience=1")
    folder = execute(*TINY, *options, "optimizer.lr=0", "trainer.max_epochs=9")
    assert read_summary(folder)["epochs"] == 2  # the second is no better than the first


COMPILED_BY_DEFAULT = ("linear", "small_convnet")  # compiling takes up to a minute


@pytest.mark.gpu
@pytest.mark.usefixtures("published_weights")
@pytest.mark.parametrize(
    ("model", "compiled"),
    [
        case if compiled == "false" or model in COMPILED_BY_DEFAULT else slow(*case)
        for model in choices("model")
        for compiled in ("false", "true", "reduce-overhead")
        for case in [(model, compiled)]
    ],
)
def test_on_a_gpu(execute: Execute, model: str, compiled: str) -> None:
    options = ("data=synthetic", "data.num_train=256", "data.num_val=64", "augment=crop_flip")
    short = (f"model={model}", "trainer=gpu", "trainer.max_epochs=1", f"compile={compiled}")
    folder = execute(*options, *short)
    assert read_summary(folder)["status"] == "finished"
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert not any("_orig_mod" in name for name in checkpoint["state_dict"])


@pytest.mark.gpu
def test_replayed_graphs_train_like_plain_steps(execute: Execute, tmp_path: Path) -> None:
    """The first step of a CUDA graph warms up, the second one records, and later ones replay."""
    options = ("model=small_convnet", "trainer=gpu", "trainer.precision=32-true", "test=false")
    losses = []
    for mode in ("false", "reduce-overhead"):
        folder = execute(
            *options, "trainer.max_epochs=3", f"compile={mode}", folder=tmp_path / mode
        )
        losses.append(float(read_rows(folder)[-1]["train/loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_network_of_bf16_weights_trains_and_is_counted_exactly(
    execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum in bf16 would keep eight bits: 301 images would count as 300 or 302."""
    monkeypatch.setattr(Linear, "forward", answer_first)
    folder = execute(
        "data=synthetic", "data.shape=[1,4,4]", "data.num_classes=2", "data.num_train=32",
        "data.num_val=602", "data.batch_size=602", "model=linear", "trainer=cpu",
        "trainer.precision=bf16-true", "trainer.max_epochs=1", "logger=none", "test=false",
    )  # fmt: skip
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert saved["network.head.weight"].dtype == torch.bfloat16
    accuracy = json.loads((folder / "summary.json").read_text())["metrics"]["val/acc"]
    assert accuracy == 0.5  # of 602 images, 301 are of the first class


def answer_first(network: Linear, images: torch.Tensor) -> torch.Tensor:
    """Logits of a network that always says the first class."""
    logits: torch.Tensor = network.head(images.flatten(1))
    return 0 * logits + torch.tensor([1, 0], dtype=logits.dtype)
