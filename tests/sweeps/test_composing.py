"""The settings of a job, without composing it anew, are those that Hydra composes."""

from pathlib import Path

import pytest
from sweeping import composer_of, job_of

from glimpse.errors import UserError
from glimpse.sweeps.composing import require_folder_name, settings_of_config


@pytest.mark.parametrize(
    "overrides",
    [
        ("seed=3", "optimizer.lr=1e-5"),
        ("model=mlp", "model.widths=[64,32]", "trainer.max_epochs=7"),
        ("callbacks=[early_stopping,ema]", "callbacks.ema.decay=0.5"),
        ("callbacks.pictures=null", "data.classes=[1,'2',three]"),
        ("~callbacks.pictures",),
        ("+trainer.max_time={hours:1}", "seed=2"),
        ("data_dir='a b'", "output_dir=${data_dir}/x"),
        ("experiment=birds_from_airplanes", "optimizer.lr=1"),
        ("seed=1", "seed=2"),
    ],
)
def test_the_quick_settings_are_the_composed_ones(overrides: tuple[str, ...]) -> None:
    composer = composer_of("name=s")
    other = job_of("seed=9", "optimizer.lr=3", *overrides)
    composed = {}
    for job in (job_of(*overrides), other):
        composed[job] = settings_of_config(composer.compose(job))
        assert dict(composer.settings(job)) == composed[job]
    assert dict(composer.settings(job_of(*overrides))) == composed[job_of(*overrides)]


def test_a_value_of_one_model_is_a_mistake_for_another() -> None:
    composer = composer_of("name=s")
    composer.settings(job_of("model=mlp", "model.widths=[3]"))
    with pytest.raises(Exception, match="widths"):
        composer.settings(job_of("model=linear", "model.widths=[3]"))


def test_the_time_as_a_name_is_the_same_for_all_jobs() -> None:
    composer = composer_of()
    config = composer.compose(job_of("seed=1"))
    assert config.name == composer.name
    assert Path(config.hydra.sweep.dir).name == composer.name


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/tmp", "n" * 201, "é" * 101])
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^name="):
        require_folder_name(name)
