"""A resumed run takes its own settings, those of earlier resumes, and the new ones, in this order."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from glimpse.config.recorded import with_recorded
from glimpse.errors import UserError

HERE = ["resume=RUN", "hydra.run.dir=RUN", "hydra.output_subdir=null"]


def run_folder(folder: Path, *at_resume: str) -> Path:
    """A run of `linear` with two epochs; what was typed at its last resume, if there was one."""
    (folder / ".hydra").mkdir(parents=True)
    recorded = ["model=linear", "trainer.max_epochs=2"]
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(recorded))
    resumed = [*recorded, *HERE, *at_resume] if at_resume else recorded
    (folder / "environment.json").write_text(json.dumps({"command": ["train.py", *resumed]}))
    return folder


def settings(folder: Path, *typed: str) -> dict[str, str]:
    """The value of each key, for Hydra takes the last one."""
    words: Sequence[str] = with_recorded([f"resume={folder}", *typed], [])
    return {key: value for key, _, value in (word.partition("=") for word in words)}


def test_what_was_typed_at_an_earlier_resume_stays(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "trainer.max_epochs=9", "optimizer.weight_decay=0")
    found = settings(folder)
    assert (found["trainer.max_epochs"], found["optimizer.weight_decay"]) == ("9", "0")
    assert found["model"] == "linear"


def test_it_is_still_known_after_one_more_resume(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "trainer.max_epochs=9")
    for typed in ("seed=1", "test=false"):
        words = with_recorded([f"resume={folder}", typed], [])
        (folder / "environment.json").write_text(json.dumps({"command": ["train.py", *words]}))
    found = settings(folder)
    assert (found["trainer.max_epochs"], found["seed"], found["test"]) == ("9", "1", "false")


def test_what_is_typed_now_counts(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "trainer.max_epochs=9")
    assert settings(folder, "trainer.max_epochs=12")["trainer.max_epochs"] == "12"


def test_a_run_that_was_never_resumed_has_its_own_settings(tmp_path: Path) -> None:
    assert settings(run_folder(tmp_path / "run"))["trainer.max_epochs"] == "2"


@pytest.mark.parametrize("content", ["{", "[]", '{"command": 3}', '{"command": ["resume=x", 3]}'])
def test_without_that_record_the_run_s_own_settings_count(tmp_path: Path, content: str) -> None:
    folder = run_folder(tmp_path / "run", "trainer.max_epochs=9")
    (folder / "environment.json").write_text(content)
    assert settings(folder)["trainer.max_epochs"] == "2"


@pytest.mark.parametrize(
    "word", ["+hydra.callbacks.x._target_=os.system", "model._target_=os.system", "seed=${oc.env:HOME}"]
)  # fmt: skip
def test_it_may_contain_no_more_than_the_run_s_own_record(tmp_path: Path, word: str) -> None:
    folder = run_folder(tmp_path / "run", word)
    with pytest.raises(UserError, match=r"environment\.json contains"):
        with_recorded([f"resume={folder}"], [])


def test_no_download_is_taken_from_it(tmp_path: Path) -> None:
    found = settings(
        run_folder(tmp_path / "run", "data.url=file:///x.zip", "data.sha256=0", "seed=3")
    )
    assert found["seed"] == "3"
    assert not {"data.url", "data.sha256"} & set(found)
