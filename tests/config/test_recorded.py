"""What `resume=<run folder>` takes from the folder's record."""

import json
from pathlib import Path

import pytest

from glimpse.config.recorded import with_recorded


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text("- model=linear\n- trainer.max_epochs=2\n")
    (folder / "summary.json").write_text(json.dumps({"status": "interrupted", "max_epochs": 9}))
    return folder


def epochs_of(overrides: list[str]) -> str:
    return [o for o in overrides if o.startswith("trainer.max_epochs=")][-1].partition("=")[2]


def test_a_run_that_was_extended_goes_on_to_its_last_number_of_epochs(run_folder: Path) -> None:
    assert epochs_of(with_recorded([f"resume={run_folder}"], [])) == "9"


def test_a_typed_number_of_epochs_counts(run_folder: Path) -> None:
    typed = [f"resume={run_folder}", "trainer.max_epochs=12"]
    assert epochs_of(with_recorded(typed, [])) == "12"


@pytest.mark.parametrize("content", ["{", "[]", '{"max_epochs": "9; rm"}', '{"max_epochs": true}'])
def test_without_a_summary_the_record_counts(run_folder: Path, content: str) -> None:
    (run_folder / "summary.json").write_text(content)
    assert epochs_of(with_recorded([f"resume={run_folder}"], [])) == "2"
