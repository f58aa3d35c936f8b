"""Where a search keeps its record. Optuna is not imported."""

from pathlib import Path

FILES = {"sqlite": "study.db", "journal": "study.journal"}  # by hydra.sweeper.storage


def study_path(folder: Path, storage: str) -> Path:
    """The file of the record in a sweep's folder."""
    return folder / FILES[storage]
