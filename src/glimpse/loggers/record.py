"""Send the loggers of a run more than the curves, which Lightning sends to all of them.

At the start, they receive the configuration; during the run, every picture in figures/; at the end,
the results as final/…, with the settings that people vary. tensorboard.py writes these for
TensorBoard.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from glimpse.command import in_shell
from glimpse.config.keys import leaves_of
from glimpse.config.schema import REPORTED
from glimpse.console import console
from glimpse.files import is_inside
from glimpse.loggers import tensorboard
from glimpse.loggers.guard import forgiving, works
from glimpse.resume import Start

SINGLE_KEYS = (
    "seed",
    "data.batch_size",
    "data.normalize",
    "data.val_fraction",
    "trainer.max_epochs",
)


def hyperparameters(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The part of a configuration that people vary: choices and numbers, not paths.

    Lists become text, as the HPARAMS tab requires.
    """
    groups = tuple(group for group in REPORTED if group != "data")
    chosen = {
        key: value if isinstance(value, bool | int | float | str) else str(value)
        for key, value in leaves_of(config)
        if key in SINGLE_KEYS or (key.startswith(groups) and not key.endswith("_target_"))
    }
    return {**names, **chosen}


def write_start(
    loggers: Iterable[Logger],
    config_yaml: str,
    settings: Mapping[str, Any],
    folder: Path,
    start: Start | None,
) -> None:
    """Send the configuration, and print where an offline logger writes.

    TensorBoard receives the whole as text, the others the `settings` that people vary.
    """
    for logger in filter(works, loggers):
        with forgiving(logger):
            if not isinstance(logger, TensorBoardLogger):
                _write_start(logger, settings, folder)
            elif start is None or not (start.next_step and start.has_same_config):
                tensorboard.write_start(logger, config_yaml, start.next_step if start else 0)


def _write_start(logger: Logger, settings: Mapping[str, Any], folder: Path) -> None:
    known: Mapping[str, str] = {}
    if isinstance(logger, MLFlowLogger):  # it rejects changed parameters, which a resume may have
        logger.experiment.update_run(logger.run_id, status="RUNNING")
        known = logger.experiment.get_run(logger.run_id).data.params
        for key in known.keys() & settings.keys():
            if known[key] != str(settings[key])[:250]:
                logger.experiment.set_tag(logger.run_id, key, settings[key])
    logger.log_hyperparams({k: v for k, v in settings.items() if k not in known})
    if isinstance(logger, WandbLogger):
        _remove_links_out(folder / "wandb", folder)
        if logger.experiment.offline:
            synced = in_shell("wandb", "sync", str(folder / "wandb"))
            console.print(f"wandb is offline; to upload: {synced}/offline-run-*")


def _remove_links_out(place: Path, folder: Path) -> None:
    """Remove links that lead out of the run folder. wandb creates one, and a resume rejects it."""
    for path in place.rglob("*"):
        if path.is_symlink() and not is_inside(folder, path):
            path.unlink()


def show(loggers: Iterable[Logger], picture: Path, step: int) -> None:
    """Send a PNG. A user's own logger receives it if it has a method log_image like wandb's."""
    for logger in filter(works, loggers):
        with forgiving(logger):
            if isinstance(logger, TensorBoardLogger):
                tensorboard.write_picture(logger, picture, step)
            elif isinstance(logger, MLFlowLogger):
                logger.experiment.log_artifact(logger.run_id, str(picture), "figures")
            elif hasattr(logger, "log_image"):
                logger.log_image(key=f"figures/{picture.stem}", images=[str(picture)], step=step)


def write_result(
    loggers: Iterable[Logger], settings: Mapping[str, Any], metrics: Mapping[str, float], step: int
) -> None:
    """Send the results as final/…; TensorBoard's HPARAMS tab shows them with the settings."""
    for logger in filter(works, loggers):
        with forgiving(logger):
            if isinstance(logger, TensorBoardLogger):
                tensorboard.write_result(logger, settings, metrics, step)
            elif metrics:
                logger.log_metrics({f"final/{name}": v for name, v in metrics.items()}, step)
                logger.save()


def close(loggers: Iterable[Logger], *, failed: bool) -> None:
    """Close the loggers. Otherwise, a sweep's next job would continue the same run of wandb."""
    for logger in loggers:
        with forgiving(logger):
            status = "failed" if failed else "success"
            if isinstance(logger, TensorBoardLogger):
                if works(logger):
                    TensorBoardLogger.finalize(logger, status)  # its own stays open; see guard.py
            else:
                logger.finalize(status)
            if isinstance(logger, WandbLogger):
                logger.experiment.finish(exit_code=int(failed))
