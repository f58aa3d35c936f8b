"""Nothing that a stranger made is executed: what Hydra builds, and what a run folder's record may say."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import REPOSITORY
from glimpse.config.trust import listed_packages, recorded_overrides
from glimpse.errors import UserError
from glimpse.files import require_no_links_out

HARMFUL = (
    "+hydra.callbacks.x._target_=mark.mark",
    "+hydra.callbacks.x={_target_:mark.mark}",
    "+hydra.callbacks.x=${optimizer}",
    "hydra.sweeper._target_=mark.mark",
    "hydra.launcher._target_=mark.mark",
    "hydra.launcher._target_=${oc.env:TARGET}",
    "+hydra.job_logging.handlers.x.class=mark.mark",
    "+hydra.hydra_logging.formatters.x={'()':mark.mark}",
    "+hydra.job_logging.handlers.x={class:logging.StreamHandler,stream:ext://mark.mark}",
)


def train(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a folder with a module that leaves a file when it is imported."""
    (folder / "mark.py").write_text("open('MARK', 'w')\ndef mark(**_): pass\n")
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "train.py"), *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder), "TARGET": "mark.mark"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("override", HARMFUL)
def test_what_hydra_would_build_is_refused_before_it_is_imported(
    tmp_path: Path, override: str
) -> None:
    result = train(tmp_path, override, "check=true")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "MARK").exists()
    assert not (tmp_path / "outputs").exists()


def test_a_pickle_is_not_run_again(tmp_path: Path) -> None:
    result = train(tmp_path, "--experimental-rerun", "config.pickle")
    assert result.returncode == 1
    assert "--experimental-rerun is not allowed" in result.stderr


@pytest.mark.slow
def test_hydras_own_sweeper_and_launcher_still_work(tmp_path: Path) -> None:
    result = train(tmp_path, "-m", "seed=1,2", "model=linear", "check=true")
    assert result.returncode == 0, result.stderr


def run_folder(tmp_path: Path, *overrides: str) -> Path:
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    return folder


@pytest.mark.parametrize(
    "override",
    [
        *HARMFUL, "hydra/launcher=joblib", "--config-dir=/elsewhere", "-m", "hydra.run.dir=/elsewhere",
        "+optimizer@hydra.callbacks.x=adam", "seed=${oc.env:HOME}", "seed=${${name}:HOME}", "seed=$${a}{oc.env:HOME}", "+mine=1", "no override",
        "hydra.searchpath=[file:///elsewhere]", "seed=${hydra:runtime.cwd}",
    ],
)  # fmt: skip
def test_a_record_may_hold_values_for_our_own_keys_alone(tmp_path: Path, override: str) -> None:
    folder = run_folder(tmp_path, "model=linear", override)
    with pytest.raises(UserError, match=r"overrides\.yaml contains"):
        recorded_overrides(folder)


@pytest.mark.parametrize(
    "override",
    [
        "+callbacks.x.dirpath=/elsewhere", "+callbacks.x={_target_:glimpse.A,dirpath:elsewhere}",
        "logger.mlflow.tracking_uri=http://elsewhere", "+logger.csv.save_dir=x", "+logger.x.y='~/elsewhere'",
        "+logger.wandb.settings={base_url:elsewhere}", "+callbacks.x.a=[../elsewhere]",
        "+trainer.default_root_dir=elsewhere",
    ],
)  # fmt: skip
def test_a_record_does_not_say_where_to_write_or_send(tmp_path: Path, override: str) -> None:
    folder = run_folder(tmp_path, "model=linear", "callbacks.x.monitor=val/loss", override)
    with pytest.raises(UserError, match="names a place outside the run folder"):
        recorded_overrides(folder)
    kept = recorded_overrides(folder, typed=[f"{override.partition('=')[0]}=mine"])
    assert kept == ["model=linear", "callbacks.x.monitor=val/loss"]


def test_a_record_of_values_is_taken_without_what_downloads(tmp_path: Path) -> None:
    kept = [
        "model=linear",
        "+data.classes=[a,b]",
        "data.root=${data_dir}/a:b",
        "~callbacks.pictures",
    ]
    dropped = ["data.url=file:///elsewhere.zip", "data.sha256=0", "resume=/elsewhere"]
    assert recorded_overrides(run_folder(tmp_path, *kept, *dropped)) == kept


def test_packages_in_a_list_that_is_not_closed_are_left_for_hydra_to_reject() -> None:
    assert listed_packages(["packages=[mine,yours]"]) == ["mine", "yours"]
    assert listed_packages(["packages=[mine"]) == []


@pytest.mark.parametrize("content", ["[1, 2", "model: linear", "- [model=linear]", "- 3"])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    folder = run_folder(tmp_path)
    (folder / ".hydra" / "overrides.yaml").write_text(content)
    with pytest.raises(UserError, match=r"overrides\.yaml"):
        recorded_overrides(folder)


def test_a_resumed_folder_from_a_stranger_executes_nothing(
    tmp_path: Path, trained_run: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(trained_run, folder)
    (folder / ".hydra").mkdir()
    record = folder / ".hydra" / "overrides.yaml"
    record.write_text(yaml.safe_dump(["model=small_convnet", HARMFUL[0]]))
    result = train(tmp_path, f"resume={folder}", "trainer.max_epochs=3")
    assert result.returncode == 1
    assert "overrides.yaml contains" in result.stderr
    assert not (tmp_path / "MARK").exists()


def test_a_link_out_of_a_resumed_folder_is_named(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "model=linear")
    (folder / "inside").symlink_to(folder / ".hydra")
    require_no_links_out(folder)
    (folder / "figures").symlink_to(tmp_path)
    with pytest.raises(UserError, match="figures is a link that leads out of"):
        require_no_links_out(folder)
