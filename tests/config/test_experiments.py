"""An experiment replaces a project's defaults, and adapts to another choice of a group."""

import re
from pathlib import Path

import pytest
from hydra import compose
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf

from conftest import composed
from glimpse.config import experiments
from glimpse.config.compose import composed as composed_as_typed
from glimpse.config.compose import hydra_for
from glimpse.errors import UserError

EXPERIMENT = ("experiment=cifar10_fast", "data=synthetic")


@pytest.mark.parametrize(
    ("overrides", "group", "left"),
    [
        (["optimizer=adamw"], "optimizer", {"_target_", "lr", "betas", "eps", "weight_decay", "fused", "decay_all"}),
        (["augment=none"], "augment", set()),
        (["augment=flip"], "augment", {"_target_", "p"}),
        (["loss=focal"], "loss", {"_target_", "gamma", "class_weights"}),
        (["callbacks=[]"], "callbacks", {"pictures", "progressive_sizes"}),
        (["callbacks=[]", "callbacks.progressive_sizes=null"], "callbacks", {"pictures", "progressive_sizes"}),
    ],
)  # fmt: skip
def test_keys_of_a_replaced_choice_are_left_out(
    overrides: list[str], group: str, left: set[str]
) -> None:
    config, _ = composed(*EXPERIMENT, *overrides)
    node = config[group]
    assert set(node) == left
    if group == "callbacks":
        assert node.progressive_sizes is None
    assert config.trainer.max_epochs == 11  # the rest of the experiment stays


def test_keys_that_the_other_choice_has_keep_the_value_of_the_experiment() -> None:
    config, _ = composed(*EXPERIMENT, "optimizer=sgd")
    assert (config.optimizer.lr, config.optimizer.momentum) == (0.01, 0.6)
    assert "matrix_lr" not in config.optimizer


def test_what_is_left_out_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiments, "_reported", set())
    for _ in range(2):
        compose("train", overrides=["experiment=mnist_fast", "optimizer=sgd", "scheduler=cosine"])
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "optimizer" in line] == [
        "the experiment's settings that optimizer=sgd does not have are left out: "
        "optimizer.matrix_lr, optimizer.num_iterations"
    ]


@pytest.mark.parametrize("names", ["alternating_flip", "alternating_flip,colour_jitter"])
def test_an_augmentation_keeps_its_keys_in_a_list(names: str) -> None:
    config, _ = composed(*EXPERIMENT, f"augment=[{names}]")
    assert config.augment.alternating_flip.padding_fraction == 0.09375
    assert set(config.augment) == set(names.split(","))


def test_an_augmentation_keeps_its_keys_out_of_a_list() -> None:
    config, _ = composed("experiment=cifar10_best", "data=synthetic", "augment=cutout")
    assert config.augment.side_fraction == 0.375
    assert {"alternating_flip", "cutout"}.isdisjoint(config.augment)


def test_an_experiment_that_includes_another_adapts_too() -> None:
    config, _ = composed("experiment=imagewoof_fast", "optimizer=adamw", "data=synthetic")
    assert "matrix_lr" not in config.optimizer


def test_as_it_stands_an_experiment_is_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    config, _ = composed("experiment=cifar10_fast")
    typed, _ = composed("experiment=cifar10_fast", "optimizer=muon", "augment=alternating_flip")
    assert OmegaConf.to_container(config) == OmegaConf.to_container(typed)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("key", ["optimizer.matrix_lr=0.1", "optimizer.matrix_l=0.1"])
def test_what_is_typed_is_never_left_out(key: str) -> None:
    with pytest.raises((UserError, ConfigCompositionException), match=r"optimizer\.matrix_l"):
        composed(*EXPERIMENT, "optimizer=adamw", key)


def test_a_callback_that_an_experiment_sets_but_does_not_choose_is_named(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    content = "# @package _global_\ncallbacks:\n  progressive_sizes:\n    until: [0.5]\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=r"type callbacks\.progressive_sizes=null"):
        composed_as_typed(["experiment=mine"], config_dir=tmp_path)


def test_an_experiment_replaces_the_defaults_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(
        "defaults: [train, override model: mlp, override data: synthetic, _self_]\n"
        "optimizer: {lr: 0.5}\ntrainer: {max_epochs: 5}\n"
    )
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [override /model: resnet20]\noptimizer: {lr: 0.3}\n"
    )
    with hydra_for(tmp_path):
        chosen = compose("project", overrides=["experiment=mine"])
        typed = compose("project", overrides=["experiment=mine", "model=linear"])
    assert chosen.model._target_.endswith("ResNet")
    assert typed.model._target_.endswith("Linear")
    for config in (chosen, typed):
        assert config.data._target_.endswith("Synthetic")
        assert (config.optimizer.lr, config.trainer.max_epochs) == (0.3, 5)


HEADER = "# @package _global_\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (HEADER + "model: linear", "write, below defaults: at the top of the file, - override /model: linear"),
        (HEADER + "callbacks: [ema]", "at the top of the file, - override /callbacks: [ema]"),
        (HEADER + "callbacks: ema", "at the top of the file, - override /callbacks: [ema]"),
        (HEADER + "defaults: [override model: linear]", "write override /model: linear, with override and the"),
        (HEADER + "defaults: [/model: linear]", "write override /model: linear, with override and the slash"),
        (HEADER + "defaults: [override /callbacks: [null]]", "Unsupported item value in defaults"),
        (HEADER + "defaults: {override /model: linear}", "defaults must be a list (got mapping): write, below"),
        ("defaults: [override /model: linear]", "write # @package _global_ as its first line"),
        ("trainer: {max_epochs: 1}", "write # @package _global_ as its first line"),
    ],
)  # fmt: skip
def test_a_slip_in_an_experiment_is_answered_with_the_line_to_write(
    tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(content)
    with pytest.raises(UserError, match=f"^experiment/mine.yaml.*{re.escape(message)}"):
        composed_as_typed(["experiment=mine"], config_dir=tmp_path)
