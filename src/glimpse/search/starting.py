"""Start a search: read its axes, check them, and open its record.

Mistakes are reported before Optuna is imported.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from glimpse.config.folder import config_folder
from glimpse.config.keys import content_of
from glimpse.errors import UserError
from glimpse.files import write_text
from glimpse.monitor import monitor_of
from glimpse.runs.groups import changes_images, is_other_loss
from glimpse.runs.settings import PLACES
from glimpse.search.place import FILES, study_path
from glimpse.search.space import Space, split
from glimpse.sweeps.composing import Composer, require_folder_name
from glimpse.sweeps.jobs import Job
from glimpse.sweeps.launching import num_at_once

if TYPE_CHECKING:
    from glimpse.search.trials import Trials

PRUNERS = ("none", "median", "hyperband", "halving")


def run_search(
    lines: Sequence[str], context: HydraContext, config: DictConfig, launcher: Launcher
) -> None:
    """Run trials until the record has `hydra.sweeper.n_trials` trials.

    Args:
        lines: The overrides as typed, including the values to search.
        context: Hydra's loader.
        config: The sweep's configuration, as Hydra composed it.
        launcher: Hydra's launcher, which runs the jobs.

    Raises:
        UserError: the search has a mistake, or a trial neither finished nor diverged.
        Interrupted: the search was told to stop; the running jobs have saved.
    """
    require_folder_name(config.name)
    loader = context.config_loader
    space, shared = split(OverridesParser.create(config_loader=loader).parse_overrides(list(lines)))
    _require_possible_settings(config.hydra.sweeper)
    _require_comparable(space, monitor_of(config).name)
    num_at_once(launcher)
    composer = Composer(loader, config)
    _require_possible_values(composer, space, shared)
    path = study_path(composer.folder, config.hydra.sweeper.storage)
    if config.sweep.plan and not path.exists():
        print(
            f"0 of {config.hydra.sweeper.n_trials} trials; the time is known once one has finished"
        )
        return
    composer.folder.mkdir(parents=True, exist_ok=True)
    trials = _open(composer, space, shared)
    from glimpse.search.running import Search

    search = Search(composer, trials, launcher)
    if config.sweep.plan:
        search.print_plan()
        return
    write_text(composer.folder / "multirun.yaml", OmegaConf.to_yaml(config))
    search.run()


def _require_possible_settings(settings: DictConfig) -> None:
    for key in ("n_trials", "seeds"):
        if settings[key] < 1:
            raise UserError(f"hydra.sweeper.{key}={settings[key]}: expected at least 1")
    for key, choices in (("pruner", PRUNERS), ("storage", tuple(FILES))):
        if settings[key] not in choices:
            raise UserError(
                f"hydra.sweeper.{key}={settings[key]}: expected one of {', '.join(choices)}"
            )


def _require_comparable(space: Space, metric: str) -> None:
    """Reject axes with which the metric would measure something else in each trial.

    A dataset's own arguments are accepted: they may be those of its preprocessing.

    Raises:
        UserError: there is such an axis.
    """
    common = content_of(config_folder() / "data" / "_common.yaml") or {}
    for key, axis in space.items():
        name = key.lstrip("+")
        if name == "monitor":
            raise UserError(f"{key}={axis}: the monitor compares the trials: type a single one")
        if is_other_loss(name, metric):
            raise UserError(
                f"{key}={axis}: {metric} cannot compare trials with different losses; "
                "type monitor=val/acc"
            )
        is_own = name.startswith("data.") and name.removeprefix("data.") not in common
        if changes_images(name) and not is_own:
            raise UserError(
                f"{key}={axis}: {metric} cannot compare trials that measure different images; type a "
                f"single value of {name}"
            )


def _require_possible_values(composer: Composer, space: Space, shared: Sequence[str]) -> None:
    """Compose and check samples of every axis, to find mistakes before anything is trained.

    Raises:
        Exception: Hydra's or ours; `explain` turns it into one line.
    """
    for i in range(max(len(axis.samples) for axis in space.values())):
        lines = [f"{key}={axis.samples[i % len(axis.samples)]}" for key, axis in space.items()]
        composer.checked(Job(i, (*shared, *lines), tuple(lines), str(i)))


def _open(composer: Composer, space: Space, shared: Sequence[str]) -> "Trials":
    """Open the record of the search, or create it.

    Raises:
        UserError: the folder contains another search, or Optuna is not installed.
    """
    try:
        from glimpse.search.study import Study
        from glimpse.search.trials import Trials
    except ModuleNotFoundError as error:
        raise UserError(
            f"hydra/sweeper=search needs {error.name}: type pip install 'glimpse[search]'"
        ) from error
    config, settings = composer.config, composer.config.hydra.sweeper
    monitor = monitor_of(config)
    typed = [line.partition("=") for line in shared]
    same = {key: str(axis) for key, axis in space.items()}
    same |= {key: value for key, _, value in typed if key.lstrip("+") not in PLACES}
    same |= {"hydra.sweeper.seeds": str(settings.seeds)}
    same |= {"monitor": f"{monitor.name} ({monitor.mode})"}
    for storage in set(FILES) - {settings.storage}:
        if study_path(composer.folder, storage).exists():
            raise UserError(
                f"hydra.sweeper.storage={settings.storage}: {composer.folder} contains a search in "
                f"{FILES[storage]}; type hydra.sweeper.storage={storage}, or another name="
            )
    study = Study(
        study_path(composer.folder, settings.storage),
        space,
        mode=monitor.mode,
        seed=config.seed,
        same=same,
        defaults=_untyped(composer, shared),
        levels=_rungs(config, space) if settings.pruner == "halving" else (),
    )
    return Trials(
        study,
        space,
        shared,
        composer.folder,
        seeds=range(config.seed, config.seed + settings.seeds),
        is_watched=settings.pruner != "none",
    )


def _untyped(composer: Composer, shared: Sequence[str]) -> Mapping[str, str]:
    """The settings of a trial as they are if no single value is typed."""
    chosen = tuple(line for line in shared if not composer.only_sets_a_value(line))
    return composer.settings(Job(0, chosen, (), ""))


def _rungs(config: DictConfig, space: Space) -> tuple[int, ...]:
    from glimpse.search.halving import rungs

    num_epochs = config.trainer.max_epochs or 0
    if num_epochs < 1 or "trainer.max_epochs" in space:
        raise UserError(
            "hydra.sweeper.pruner=halving compares trials of the same length: type a number of epochs, "
            "such as trainer.max_epochs=27"
        )
    key = "trainer.check_val_every_n_epoch"
    every = config.trainer.check_val_every_n_epoch
    if every != 1 or key in space:
        raise UserError(
            f"{key}={space.get(key, every)}: hydra.sweeper.pruner=halving compares trials after their "
            f"first epoch, which needs a validation after each epoch: type {key}=1"
        )
    return rungs(num_epochs)
