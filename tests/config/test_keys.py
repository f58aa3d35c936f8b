"""Messages for choices that do not exist."""

import pytest

from glimpse.config.keys import unknown_choice


@pytest.mark.parametrize(("launcher", "extra"), [("ray", "ray"), ("submitit_slurm", "slurm")])
def test_a_launcher_that_is_not_installed_names_its_extra(launcher: str, extra: str) -> None:
    message = unknown_choice("hydra/launcher", launcher, ["basic", "local"])
    assert message.endswith(f"type pip install 'glimpse[{extra}]'")


def test_a_launcher_for_parallel_jobs_is_answered_by_n_jobs() -> None:
    message = unknown_choice("hydra/launcher", "joblib", ["basic", "local"])
    assert "type hydra.launcher.n_jobs=<number>" in message
