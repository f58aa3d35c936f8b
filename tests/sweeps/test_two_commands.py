"""Two equal commands at once share the work: every job is trained once, and both end well."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from sweeping import QUICK, command, states

from preloaded import environment

LONGER = (*QUICK, "trainer.max_epochs=40")
RATE = "optimizer.lr=tag(log,interval(1e-3,1e-1))"
SEARCH = ("hydra/sweeper=search", "hydra.sweeper.n_trials=4", RATE)


def both(folder: Path, *options: str) -> list[str]:
    """What two equal commands print that run at the same time."""
    running = [
        subprocess.Popen(
            command("-m", *LONGER, *options), cwd=folder, env=environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], printed
    return printed


def trained(printed: list[str]) -> list[str]:
    """The run folders of the jobs that both commands trained, or else waited for."""
    return re.findall(r"^run folder (\S+)", "\n".join(printed), re.M)


@pytest.mark.slow
def test_two_equal_sweeps(tmp_path: Path) -> None:
    printed = both(tmp_path, "seed=1,2,3,4")
    folder = tmp_path / "outputs" / "sweeps" / "s"
    assert states(folder) == {f"seed-{seed}": "finished" for seed in (1, 2, 3, 4)}
    assert sorted(Path(name).name for name in trained(printed)) == sorted(states(folder))
    for text in printed:
        assert text.count("  finished  ") == 4  # both show the whole table


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2])
def test_two_equal_searches(tmp_path: Path, at_once: int) -> None:
    printed = both(tmp_path, *SEARCH, f"hydra.launcher.n_jobs={at_once}")
    folder = tmp_path / "outputs" / "sweeps" / "s"
    jobs = {path.name for path in folder.iterdir() if path.is_dir()}
    assert len(jobs) == 4
    if at_once == 1:  # otherwise, the jobs print to files
        assert sorted(Path(name).name for name in trained(printed)) == sorted(jobs)
    for text in printed:
        assert "4 trials (4 finished)" in text, "\n".join(printed)
        assert text.count("  finished  ") == 4  # both show the whole table


@pytest.mark.slow
def test_two_equal_searches_with_halving(tmp_path: Path) -> None:
    printed = both(tmp_path, *SEARCH, "hydra.sweeper.pruner=halving", "trainer.max_epochs=27")
    counted = [re.findall(r"^(4 trials .*\))$", text, re.M)[-1] for text in printed]
    assert counted[0] == counted[1]
    assert "interrupted" not in counted[0]
    assert "failed" not in counted[0]
    states = {job: "finished" if n == 27 else "pruned" for job, n in epochs(tmp_path).items()}
    record = json.loads((tmp_path / "outputs/sweeps/s/sweep.json").read_text())
    assert {job["folder"]: job["state"] for job in record["jobs"]} == states


def epochs(folder: Path) -> dict[str, int]:
    """The number of epochs of each job, by the name of its folder."""
    found = (folder / "outputs" / "sweeps" / "s").glob("*/summary.json")
    return {path.parent.name: json.loads(path.read_text())["epochs"] for path in found}
