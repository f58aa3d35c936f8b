"""`glimpse report` ranks models on each dataset, and says which differences are more than noise."""

from pathlib import Path

import pytest
from PIL import Image
from scipy.stats import ttest_ind
from typer.testing import CliRunner

from folders import write_run
from glimpse.cli.main import app
from glimpse.insight.significance import welch
from glimpse.runs.folder import find_runs
from glimpse.runs.groups import group
from glimpse.runs.ranking import holm, rankings, told

CLEAR, CLOSE, BEHIND = (0.90, 0.91, 0.92), (0.70, 0.72, 0.74), (0.69, 0.71, 0.74)


def write_models(folder: Path, data: str = "digits", **accuracies: tuple[float, ...]) -> None:
    for model, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            target = f"glimpse.models.{model}.Net"
            write_run(
                folder / f"{data}-{model}-{seed}",
                accuracy=accuracy,
                seed=seed,
                config={"model": {"_target_": target}, "data": {"_target_": data}},
                data=data,
                model=model,
            )


def sentences(folder: Path) -> list[str]:
    return told(rankings(group(find_runs(folder))))


def test_signs_tell_differences_from_noise(tmp_path: Path) -> None:
    write_models(tmp_path, linear=BEHIND, convnet=CLEAR, mlp=CLOSE)
    write_models(tmp_path, "mnist", linear=(0.8,), mlp=(0.9, 0.91))
    first, second, *signs = sentences(tmp_path)
    assert first == "digits (test/acc): convnet > mlp ≈ linear"
    assert second == "mnist (test/acc): mlp ? linear"
    assert signs == [
        "Between two models, > is a difference beyond the noise of the seeds, ≈ is a difference within the noise "
        "of the seeds (Welch's t-test, p < 0.05 after Holm's correction).",
        "? means that the noise is unknown: a model has a single run, only folds, or the same result for every seed.",
    ]


def test_datasets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for number, classes in enumerate(("[0,1]", "[3,8]")):
        for model in ("linear", "mlp"):
            target = {"_target_": f"glimpse.models.{model}.Net"}
            write_run(
                tmp_path / f"{model}-{number}",
                accuracy=0.5,
                config={"model": target, "data": {"_target_": "digits", "classes": classes}},
                model=model,
            )
    first, second, _ = sentences(tmp_path)
    assert {first.partition(" (")[0], second.partition(" (")[0]} == {
        "digits data.classes=[0,1]",
        "digits data.classes=[3,8]",
    }


def test_a_model_is_shown_by_the_group_that_validation_prefers(tmp_path: Path) -> None:
    write_models(tmp_path, linear=(0.5,), mlp=(0.6,))
    metrics = {"val/acc": 0.7, "test/acc": 0.4}
    mlp = {"_target_": "glimpse.models.mlp.Net"}
    write_run(
        tmp_path / "preferred",
        config={"model": mlp, "data": {"_target_": "digits"}, "optimizer": {"lr": 9}},
        model="mlp",
        metrics=metrics,
    )
    [ranking] = rankings(group(find_runs(tmp_path)))
    assert {name: found.mean for name, found in ranking.models.items()} == {
        "linear": 0.5,
        "mlp": 0.4,
    }


@pytest.mark.parametrize(
    ("watched", "best"),
    [("val/f1", "linear"), ("val/loss", "linear"), (None, "mlp")],
    ids=["highest", "lowest", "different"],
)
def test_models_are_ranked_by_what_their_runs_watched(
    tmp_path: Path, watched: str | None, best: str
) -> None:
    results = {"linear": (0.5, 0.9, 0.1), "mlp": (0.8, 0.4, 0.6)}
    for model, values in results.items():
        named = dict(zip(("acc", "f1", "loss"), values, strict=True))
        metrics = {f"{split}/{name}": v for split in ("val", "test") for name, v in named.items()}
        monitor = watched or ("val/f1" if model == "mlp" else "val/loss")
        write_run(tmp_path / model, model=model, metrics=metrics, monitor=monitor)
    first, _ = sentences(tmp_path)
    metric = (watched or "val/acc").replace("val/", "test/")
    assert first.startswith(f"digits ({metric}): {best} ? ")
    result = CliRunner().invoke(app, ["report", str(tmp_path)])
    assert result.exit_code == 0, result.output
    name = "result_by_model.png" if watched else "accuracy_by_model.png"
    assert (tmp_path / "figures" / name).is_file()


@pytest.mark.parametrize(
    "changes", [{"status": "failed"}, {"data": "mnist"}], ids=["failed", "other data"]
)
def test_one_model_alone_is_not_ranked(tmp_path: Path, changes: dict[str, str]) -> None:
    write_run(tmp_path / "linear")
    write_run(tmp_path / "mlp", model="mlp", **changes)
    assert rankings(group(find_runs(tmp_path))) == []
    assert told([]) == []


def test_folds_are_not_taken_for_seeds(tmp_path: Path) -> None:
    for model, values in {"linear": BEHIND, "mlp": CLEAR}.items():
        for fold, accuracy in enumerate(values):
            data = {"_target_": "digits", "folds": 3, "fold": fold}
            write_run(
                tmp_path / f"{model}-{fold}", accuracy=accuracy, model=model, config={"data": data}
            )
    *ranked, signs = sentences(tmp_path)
    assert all("? linear" in line for line in ranked)
    assert "t-test" not in signs


def test_the_picture_has_a_panel_for_each_dataset(tmp_path: Path) -> None:
    write_models(tmp_path, linear=BEHIND, mlp=CLEAR)
    narrow = draw(tmp_path)
    write_models(tmp_path, "$\\broken{$", linear=(0.8,), mlp=(0.9, 0.91))
    assert draw(tmp_path)[0] == 2 * narrow[0]
    assert "alt='accuracy by model'" in (tmp_path / "report.html").read_text()


def test_a_page_elsewhere_leaves_the_runs_alone(tmp_path: Path) -> None:
    runs, place = tmp_path / "runs", tmp_path / "elsewhere"
    write_models(runs, linear=BEHIND, mlp=CLEAR)
    place.mkdir()
    before = sorted(runs.rglob("*"))
    result = CliRunner().invoke(app, ["report", str(runs), "--html", str(place / "page.html")])
    assert result.exit_code == 0, result.output
    assert sorted(runs.rglob("*")) == before
    assert (place / "figures" / "accuracy_by_model.png").is_file()


def draw(folder: Path) -> tuple[int, int]:
    """Report a folder; returns the size of the picture in pixels."""
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0, result.output
    assert "mlp > linear" in result.output
    with Image.open(folder / "figures" / "accuracy_by_model.png") as picture:
        return picture.size


def test_welch_is_the_test_over_the_runs_themselves() -> None:
    moments = [_moments(values) for values in (CLEAR, (*CLOSE, 0.88))]
    expected = ttest_ind(CLEAR, (*CLOSE, 0.88), equal_var=False).pvalue
    assert welch(*moments) == pytest.approx(expected)
    assert welch((0.5, 0, 3), (0.6, 0, 3)) is None
    assert welch((0.5, 0, 3), (0.5, 0, 3)) == 1


def _moments(values: tuple[float, ...]) -> tuple[float, float, int]:
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, variance**0.5, len(values)


def test_holm_stops_at_the_first_that_is_too_likely() -> None:
    """The levels are 0.05 / 4, / 3, / 2 and / 1, from the smallest on."""
    assert holm([0.04, 0.012, 0.03, 0.016]) == [False, True, False, True]
    assert holm([0.049]) == [True]
