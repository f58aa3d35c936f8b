"""Which runs are averaged as one setting, and which groups are compared with each other."""

from pathlib import Path

import pytest

from folders import write_environment, write_run
from glimpse.runs.compare import differing_settings
from glimpse.runs.folder import find_runs, read_run
from glimpse.runs.groups import Group, group, rivals, statistic
from glimpse.runs.ranking import rankings


def groups_of(folder: Path) -> list[Group]:
    return group(find_runs(folder))


@pytest.mark.parametrize("value", [0.9777778, 0.9805556, 1 / 3])
@pytest.mark.parametrize("num", [2, 3, 5, 7])
def test_equal_values_have_no_spread(value: float, num: int) -> None:
    """A sum that rounds would give them one, and a test would call any difference significant."""
    found = statistic([value] * num)
    assert found is not None
    assert (found.mean, found.std) == (value, 0.0)


def test_models_whose_seeds_are_all_equal_are_not_told_apart(tmp_path: Path) -> None:
    for model, accuracy in (("linear", 0.9777778), ("mlp", 0.9805556)):
        for seed in range(3):
            write_run(tmp_path / f"{model}{seed}", model=model, accuracy=accuracy, seed=seed)
    [ranking] = rankings(groups_of(tmp_path))
    assert ranking.signs == ["?"]


def test_an_extended_run_is_no_seed_of_one_that_trained_as_long_from_the_start(
    tmp_path: Path,
) -> None:
    write_run(tmp_path / "one", seed=1, extended_from=[1])
    write_run(tmp_path / "two", seed=2)
    labels = {found.label for found in groups_of(tmp_path)}
    assert labels == {"trainer.max_epochs=1, then 2", "trainer.max_epochs=2"}


@pytest.mark.parametrize("key", ["extended_from", "changed_from"])
def test_two_runs_with_other_stages_differ_in_their_epochs(tmp_path: Path, key: str) -> None:
    write_run(tmp_path / "one", **{key: [1]})
    write_run(tmp_path / "two")
    one, two = (read_run(tmp_path / name) for name in ("one", "two"))
    assert differing_settings(one, two) == [("trainer.max_epochs", "1, then 2", "2")]


def test_a_run_resumed_with_another_seed_repeats_no_run_with_that_seed(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", seed=2, settings={"seed": 1})
    write_environment(one, "train.py", f"resume={one}", "seed=2")
    write_run(tmp_path / "two", seed=2)
    [found] = groups_of(tmp_path)
    assert len(found.repeats) == 2


def test_a_run_whose_settings_a_resume_changed_is_no_seed_of_others(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", seed=1)
    write_environment(one, "train.py", f"resume={one}", "optimizer.lr=0.1")
    write_run(tmp_path / "two", seed=2, config={"optimizer": {"lr": 0.1}})
    labels = {found.label for found in groups_of(tmp_path)}
    assert labels == {"optimizer.lr=0.001, then 0.1", "optimizer.lr=0.1"}


@pytest.mark.parametrize(
    ("typed", "label"),
    [
        ("scheduler=constant", "scheduler=onecycle, then constant"),
        ("augment=flip", "augment=flip"),
        ("callbacks=[ema]", 'callbacks=["ema"]'),
        ("data.split_seed=null", "data.split_seed=0, then null"),
        ("callbacks.pictures=null", "callbacks.pictures=null"),
        ("+optimizer.foreach=true", "optimizer.foreach=true"),
    ],
)
def test_a_run_whose_files_a_resume_changed_is_no_seed_of_others(
    typed: str, label: str, tmp_path: Path
) -> None:
    one = write_run(tmp_path / "one", seed=1)
    choices = {"scheduler": "onecycle", "model": "mlp"}
    (one / ".hydra" / "hydra.yaml").write_text(f"hydra: {{runtime: {{choices: {choices}}}}}")
    write_run(tmp_path / "two", seed=2)
    write_environment(one, "train.py", f"resume={one}", "model=mlp", "trainer.max_epochs=2")
    assert len(groups_of(tmp_path)) == 1  # what was typed changes nothing
    write_environment(one, "train.py", f"resume={one}", "model=mlp", typed)
    labels = {found.label for found in groups_of(tmp_path)}
    assert len(labels) == 2
    assert label in labels


def test_a_typed_choice_comes_before_the_class_that_it_replaced(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "one", "other")):
        folder = write_run(
            tmp_path / str(number), settings={"scheduler": {"_target_": f"a.{name}"}}
        )
    folder = tmp_path / "1"
    chosen = "hydra: {runtime: {choices: {scheduler: one}}}"
    (folder / ".hydra" / "hydra.yaml").write_text(chosen)
    write_environment(folder, "train.py", f"resume={folder}", "scheduler=other")
    labels = {found.label for found in groups_of(tmp_path)}
    assert labels == {"scheduler=one", "scheduler=one, then other", "scheduler=other"}


def test_runs_on_other_images_of_one_name_are_not_averaged_or_compared(tmp_path: Path) -> None:
    for seed, content in enumerate(["a1", "a1", "b2", ""]):
        write_run(tmp_path / str(seed), seed=seed, data_id=content)
    found = groups_of(tmp_path)
    assert sorted(len(one.runs) for one in found) == [1, 1, 2]
    assert "data.content=a1" in {one.label for one in found}
    assert len(rivals(found)) == 3


def test_an_older_run_without_a_record_of_its_images_is_averaged(tmp_path: Path) -> None:
    for seed, content in enumerate(["a1", "a1", ""]):
        write_run(tmp_path / str(seed), seed=seed, data_id=content)
    assert [len(one.runs) for one in groups_of(tmp_path)] == [3]


def test_models_with_other_folds_are_not_compared(tmp_path: Path) -> None:
    for model, folds in (("linear", range(5)), ("mlp", range(2))):
        for fold in folds:
            config = {"data": {"fold": fold, "folds": 5}, "model": {"_target_": f"a.{model}"}}
            write_run(tmp_path / f"{model}{fold}", model=model, config=config)
    found = groups_of(tmp_path)
    assert len(found) == len(rivals(found)) == 2
    assert all(one.above_simplest == 0 for one in found)


def test_a_batch_over_all_devices_is_no_other_split(tmp_path: Path) -> None:
    for size in (32, 64):
        write_run(tmp_path / str(size), config={"data": {"global_batch_size": size}})
    assert len(rivals(groups_of(tmp_path))) == 1


@pytest.mark.parametrize("losses", [("a.One", "a.Other"), ("a.One", "a.One")])
def test_values_of_different_losses_are_not_compared(
    tmp_path: Path, losses: tuple[str, str]
) -> None:
    for model, loss, value, accuracy in (
        ("linear", losses[0], 0.5, 0.9),
        ("mlp", losses[1], 0.1, 0.8),
    ):
        metrics = {"val/acc": accuracy, "val/loss": value}
        settings = {"monitor": "val/loss", "loss": {"_target_": loss}}
        write_run(tmp_path / model, model=model, metrics=metrics, settings=settings)
    found = groups_of(tmp_path)
    by_loss = losses[0] == losses[1]
    assert [one.model for one in found] == (["mlp", "linear"] if by_loss else ["linear", "mlp"])
    [ranking] = rankings(found)
    assert ranking.metric == ("val/loss" if by_loss else "val/acc")


def test_runs_without_settings_do_not_hide_what_differs_between_others(tmp_path: Path) -> None:
    for name, rate in (("one", 0.1), ("two", 0.2)):
        write_run(tmp_path / name, settings={"optimizer": {"lr": rate}}, data_id="0" * 16)
        unknown = write_run(tmp_path / f"{name}_unknown", model="mlp", data_id="0" * 16)
        (unknown / ".hydra" / "config.yaml").unlink()
    other = write_run(tmp_path / "other", data_id="1" * 16)
    (other / ".hydra" / "config.yaml").unlink()
    found = groups_of(tmp_path)
    unknown_label = "(settings not recorded)"
    assert sorted(one.label for one in found) == [
        *[unknown_label] * 3, "optimizer.lr=0.1", "optimizer.lr=0.2",
    ]  # fmt: skip
    assert not rankings(found)
