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


def test_one_size_of_batches_replaces_the_other(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "data.batch_size=16")
    found = settings(folder, "data.global_batch_size=16")
    assert found["data.global_batch_size"] == "16"
    assert "data.batch_size" not in found


def test_a_mistyped_folder_is_answered_with_a_run(tmp_path: Path) -> None:
    run_folder(tmp_path / "report")
    (tmp_path / "report.html").touch()
    with pytest.raises(UserError, match=r"did you mean .*/report\?$"):
        settings(tmp_path / "report.htm")


def test_another_place_is_refused_or_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "outputs" / "digits-linear" / "run")
    with pytest.raises(UserError, match=r"a resumed run writes .*: leave out hydra\.run\.dir"):
        settings(folder, "hydra.run.dir=elsewhere")
    assert str(folder) in settings(folder, "output_dir=elsewhere")["hydra.run.dir"]
    assert "output_dir=elsewhere is not used" in capsys.readouterr().err


def test_its_own_place_may_be_typed(tmp_path: Path) -> None:
    """As it is after a restart by torchrun."""
    folder = run_folder(tmp_path / "outputs" / "digits-linear" / "run")
    found = settings(folder, f"output_dir='{tmp_path}/outputs'", f"hydra.run.dir={folder}")
    assert found["hydra.run.dir"] == str(folder)


def test_a_run_that_was_never_resumed_has_its_own_settings(tmp_path: Path) -> None:
    assert settings(run_folder(tmp_path / "run"))["trainer.max_epochs"] == "2"


@pytest.mark.parametrize(
    ("recorded", "choice", "kept"),
    [
        (["scheduler=step", "scheduler.every=1"], "scheduler=constant", []),
        (["scheduler=step", "scheduler.factor=0.5"], "scheduler=plateau", ["scheduler.factor=0.5"]),
        (["callbacks=[early_stopping]", "callbacks.early_stopping.patience=1"], "callbacks=[]", []),
        (
            ["callbacks=[]", "callbacks.pictures=null"],
            "callbacks=[ema]",
            ["callbacks.pictures=null"],
        ),
        (["trainer=auto", "trainer.precision=32"], "trainer=cpu", ["trainer.precision=32"]),
        (
            ["trainer=auto", "+trainer.max_time.hours=1"],
            "trainer=cpu",
            ["+trainer.max_time.hours=1"],
        ),
        (
            ["callbacks=[]", "+callbacks.mine._target_=lightning.pytorch.callbacks.Timer"],
            "callbacks=[ema]",
            ["+callbacks.mine._target_=lightning.pytorch.callbacks.Timer"],
        ),
        (["data=digits", "data.val_fraction=0.2"], "data=mnist", ["data.val_fraction=0.2"]),
        (["augment=flip", "augment.p=1"], "augment=[flip,cutout]", []),
        (["augment=[flip,cutout]", "augment.flip.p=1"], "augment=[flip]", ["augment.flip.p=1"]),
        (["logger=wandb", "logger.wandb.project=x"], "logger=none", []),
        (["scheduler=step", "scheduler.every=1"], "scheduler=nowhere", ["scheduler.every=1"]),
    ],
)
def test_settings_that_a_new_choice_does_not_have_are_left_out(
    tmp_path: Path,
    recorded: list[str],
    choice: str,
    kept: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether they were typed at the start or at an earlier resume."""
    for at_resume in (False, True):
        folder = run_folder(tmp_path / f"{at_resume}", *(recorded if at_resume else ()))
        if not at_resume:
            record = json.dumps(["model=linear", *recorded])
            (folder / ".hydra" / "overrides.yaml").write_text(record)
        words = with_recorded([f"resume={folder}", choice], [])
        assert [word for word in words if word in recorded] == kept
        dropped = [word.partition("=")[0] for word in recorded if word not in (*kept, recorded[0])]
        assert ", ".join(dropped) in capsys.readouterr().err


def test_without_a_new_choice_all_settings_stay(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", "scheduler=step")
    record = ["scheduler=constant", "scheduler.every=1", "scheduler.final_factor=0"]
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(record))
    found = settings(folder)
    assert "scheduler.final_factor" not in found  # a file was chosen at the last resume
    assert found["scheduler.every"] == "1"
    (folder / "environment.json").unlink()
    assert settings(folder)["scheduler.final_factor"] == "0"


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
