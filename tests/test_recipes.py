"""The row that benchmarks/recipes.py prints for a recipe."""

import json
import runpy
from pathlib import Path

import pytest

from conftest import REPOSITORY
from folders import write_run

PROGRAM = runpy.run_path(str(REPOSITORY / "benchmarks" / "recipes.py"))


def write_seeds(folder: Path, **settings: object) -> None:
    for seed, accuracy in enumerate((0.90, 0.92, 0.94)):
        run = write_run(
            folder / f"seed-{seed}",
            seed=seed,
            seconds=100.0 + seed,
            metrics={"val/acc": 0.95, "test/acc": accuracy, "test/acc_flip": accuracy + 0.01},
            config={"data": settings, "trainer": {"max_epochs": 7, "check_val_every_n_epoch": 7}},
        )
        environment = {"processor": "Zen", "cores": 4, "threads": 2, "precision": "bf16-mixed"}
        (run / "environment.json").write_text(json.dumps(environment))


@pytest.mark.parametrize(
    ("val_fraction", "chosen_by"),
    [(0.1, "10% of the training images"), (0.0, "nothing: the last epoch")],
)
def test_the_row_has_every_fact(tmp_path: Path, val_fraction: float, chosen_by: str) -> None:
    write_seeds(tmp_path, val_fraction=val_fraction)
    printed: str = PROGRAM["row"](tmp_path, "python train.py experiment=x")
    header, _, line = printed.splitlines()
    cells = dict(zip(header.split(" | "), line.split(" | "), strict=True))
    assert cells["test/acc"] == "0.9200 ± 0.0200"
    assert cells["test/acc_flip"] == "0.9300 ± 0.0200"
    assert cells["val/acc"] == "0.9500 ± 0.0000"
    assert cells["n"] == "3"
    assert cells["seconds"] == "100 to 102"
    assert "2 of 4 cores, bf16-mixed" in cells["machine"]
    assert cells["chosen by |"] == f"{chosen_by} |"


def test_the_runs_are_found_where_the_sweep_puts_them() -> None:
    find = PROGRAM["sweep_folder"]
    assert find(["name=recipe-x", "experiment=x"]) == Path("outputs/sweeps/recipe-x")
    assert find(["name=recipe-x", "output_dir=/runs", "name=all"]) == Path("/runs/sweeps/all")
