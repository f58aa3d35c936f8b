"""One run from top to bottom: parts, training, measurement, record."""

import math
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf

from glimpse import lr_find
from glimpse.callbacks import pictures
from glimpse.callbacks.pruning import ShouldStop
from glimpse.callbacks.stop_on_signal import PrunedError
from glimpse.classifier import ImageClassifier
from glimpse.config.build import own_packages, plain, require_known_arguments
from glimpse.console import console
from glimpse.data.module import ImageDataModule
from glimpse.distributed.place import Place
from glimpse.distributed.processes import gathered
from glimpse.environment import environment
from glimpse.errors import UserError, first_line
from glimpse.files import discard_partials, require_kinds
from glimpse.folder_lock import held
from glimpse.found_checkpoint import CHECKPOINTS, LAST
from glimpse.lightning_compat import (
    IS_FIRST_PROCESS,
    callbacks_of,
    epochs_trained,
    set_up_callbacks,
)
from glimpse.loggers.building import remember_ids
from glimpse.loggers.record import close, hyperparameters, write_result, write_start
from glimpse.measurement import measure
from glimpse.monitor import monitor_of
from glimpse.network import remark_on_trained
from glimpse.optim.schedules import build_schedule
from glimpse.parts import Parts, build_parts, planned_steps_of_an_epoch
from glimpse.records import ENVIRONMENT, METRICS, SUMMARY
from glimpse.result import print_result
from glimpse.resume import named_if_it_does_not_fit
from glimpse.signals import interrupts_as_signals
from glimpse.summary import summarised
from glimpse.text import by
from glimpse.threads import threads_restored
from glimpse.trainer import device_of, global_batch_size, num_processes

# The files that a run needs in its folder. If nothing is left to train, it does not need best.ckpt.
FILES = (SUMMARY, ENVIRONMENT, METRICS, f"{CHECKPOINTS}/{LAST}")


def run(
    config: DictConfig,
    folder: Path,
    names: Mapping[str, str],
    *,
    judge: ShouldStop | None = None,
    afterwards: str = "",
) -> float | None:
    """Train a model on a dataset and leave the record in `folder`.

    Args:
        config: Composed and checked.
        folder: The run folder.
        names: The chosen `data`, `model` and so on, for messages and reports.
        judge: Decides after each epoch whether a trial of a search stops early.
        afterwards: The rest of the sweep after this run, for the progress bar.

    Returns:
        The best value of the monitor, val/acc unless the configuration names another; None without
        validation.

    Raises:
        UserError: the user can fix the cause, or another process works in the folder.
        Interrupted: Ctrl-C or a signal stopped the run.
    """
    torch.set_float32_matmul_precision("high")  # TF32 for fp32 products on tensor cores
    watched, resolved = monitor_of(config), plain(config)
    if IS_FIRST_PROCESS:
        require_kinds(folder, files=FILES, folders=map(str, config.logger or ()))
    with (
        threads_restored(),
        held(folder) if IS_FIRST_PROCESS else nullcontext(),
        summarised(config, folder, names) as summary,
        gathered(
            _for_the_others(resolved, folder, names),
            1 if config.check else num_processes(config),
            summary.end,
        ) as team,
        interrupts_as_signals(),
        ExitStack() as at_end,
    ):
        parts = build_parts(
            config, resolved, names, summary, team, judge=judge, afterwards=afterwards
        )
        if config.check:
            _check(parts)
            return None
        if parts.start is not None:
            # Their errors come first, and reject the run before its record changes.
            set_up_callbacks(parts.trainer, parts.classifier, parts.data)
        summary.accept()
        summary.update(monitor=watched.name, mode=watched.mode)
        settings = hyperparameters(resolved, names)
        loggers = [*parts.loggers.values()]
        at_end.push(lambda kind, *_: close(loggers, failed=kind is not None))
        if IS_FIRST_PROCESS:
            _begin_record(parts, settings)
        team.wait_for_all("ready")  # another process's error ends this wait, but not Lightning's
        if config.task == "lr_find":
            summary.update(metrics=lr_find.find(parts))
            return None
        _fit(parts)
        num_trained = measure(parts)
        if IS_FIRST_PROCESS:
            network = parts.classifier.network
            if remark := remark_on_trained(network, config.model, parts.data.spec):
                console.print(remark)
            pictures.draw_curves(parts.trainer)
            write_result(loggers, settings, summary.metrics, parts.trainer.global_step)
    if IS_FIRST_PROCESS:
        print_result(config, summary, parts.data, num_trained=num_trained)
    return parts.checkpoints.best_value


def _for_the_others(
    resolved: Mapping[str, Any], folder: Path, names: Mapping[str, str]
) -> dict[str, Any]:
    """The message to the other processes, which build no network for `check=true`."""
    if resolved["check"]:
        return {"exit": 0, "error": ""}
    return {"config": resolved, "folder": str(folder.resolve()), "names": dict(names)}


def _check(parts: Parts) -> None:
    """`check=true`: do all that a run does, but with one batch on the CPU and without a record.

    The schedule is built for about as many steps. A logger is not built, as it may open a run
    elsewhere; only its arguments are checked.
    """
    set_up_callbacks(parts.trainer, parts.classifier, parts.data)
    config, trainer = parts.config, parts.trainer
    steps = planned_steps_of_an_epoch(
        config, parts.data, global_batch_size(config, parts.place.world_size)
    )
    ends = [trainer.max_steps, (trainer.max_epochs or 0) * steps]
    total_steps = min((end for end in ends if end >= 0), default=math.inf)
    optimizer = parts.classifier.new_optimizer()
    build_schedule(optimizer, plain(config.scheduler), total_steps=total_steps)
    for node in (config.logger or {}).values():
        if node:
            require_known_arguments("logger", node)
    _push_one_batch(config, parts.classifier, parts.data)


def _push_one_batch(config: DictConfig, classifier: ImageClassifier, data: ImageDataModule) -> None:
    """Process one batch, forward and backward, on the CPU."""
    batch = data.batches.to_network(
        next(iter(data.batches.loader("train", training=True))), training=True
    )
    losses: list[float] = []

    @torch.enable_grad()
    def loss_and_gradients() -> float:
        classifier.zero_grad()
        loss = classifier.loss_of(classifier.network(batch.images), batch.labels)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
        return losses[-1]

    classifier.new_optimizer().step(closure=loss_and_gradients)  # LBFGS calls it several times
    if not losses:
        raise _without_closure(config)
    size = by(batch.images.shape)
    console.print(f"one batch of {size}, forward and backward: loss {losses[0]:.4f}")


def _without_closure(config: DictConfig) -> UserError:
    """The error for an optimizer whose step would train nothing."""
    return UserError(
        f"optimizer._target_={config.optimizer._target_}: its step does not call the closure, which computes "
        "the gradients: call loss = closure() before the update"
    )


def _begin_record(parts: Parts, settings: Mapping[str, Any]) -> None:
    """Write to the run folder and to the loggers what the run starts with."""
    config, folder = parts.config, parts.summary.folder
    discard_partials(folder)
    if parts.resume_from is not None:
        parts.checkpoints.begin_from(Path(parts.resume_from))
    parts.summary.begin(
        environment(
            device=device_of(config),
            precision=parts.precision.name,
            place=parts.place,
            packages=own_packages(config),
        )
    )
    if parts.place.world_size > 1:
        _print_batch(config, parts.place)
    remember_ids(parts.loggers, folder)
    as_yaml = OmegaConf.to_yaml(config, resolve=True)
    write_start(parts.loggers.values(), as_yaml, settings, folder, parts.start)


def _print_batch(config: DictConfig, place: Place) -> None:
    nodes = f" on {place.num_nodes} nodes" if place.num_nodes > 1 else ""
    batch_size = global_batch_size(config, place.world_size)
    lr = config.optimizer.get("lr")
    rate = "the learning rate" if lr is None else f"optimizer.lr={lr:g}"
    console.print(
        f"{place.world_size} processes{nodes} × {batch_size // place.world_size} images = "
        f"{batch_size} in a batch; {rate} is not scaled to it"
    )


def _fit(parts: Parts) -> None:
    """Train. However this ends, the summary contains the results so far."""
    config, trainer, summary = parts.config, parts.trainer, parts.summary
    with named_if_it_does_not_fit(parts.resume_from, lambda: parts.classifier.has_begun):
        try:
            trainer.fit(
                parts.classifier,
                datamodule=parts.data,
                ckpt_path=parts.resume_from,
                weights_only=True,
            )
        except PrunedError:
            summary.prune()
        except MisconfigurationException as error:
            if "closure hasn't been executed" in str(error):
                raise _without_closure(config) from error
            # Such as from a callback that needs a logger.
            raise UserError(f"trainer: {first_line(error)}") from error
        except ValueError as error:
            _require_validation_within_an_epoch(config, trainer, error)
            raise
        finally:
            summary.update(
                epochs=epochs_trained(trainer),
                best_epoch=parts.checkpoints.best_epoch,
                images_per_second=parts.record.images_per_second(),
                metrics=dict(parts.checkpoints.best_metrics),
            )
            if config.on_nonfinite == "skip":
                summary.update(skipped_steps=parts.classifier.num_skipped)
    _say_if_time_ran_out(config, trainer)


def _require_validation_within_an_epoch(
    config: DictConfig, trainer: pl.Trainer, error: ValueError
) -> None:
    """Explain Lightning's error if an epoch has fewer batches than `trainer.val_check_interval`.

    Only Lightning knows the number of batches, as several settings limit it.

    Raises:
        UserError: this is the error.
    """
    if "`val_check_interval`" in str(error):
        raise UserError(
            f"trainer.val_check_interval={config.trainer.val_check_interval}: an epoch has only "
            f"{trainer.num_training_batches} batches: type a lower number, or "
            "trainer.check_val_every_n_epoch=null to count batches across epochs"
        ) from error


def _say_if_time_ran_out(config: DictConfig, trainer: pl.Trainer) -> None:
    """Say that a time limit ended the training; otherwise the training would seem complete."""
    most, epochs = config.trainer.max_epochs, epochs_trained(trainer)
    if most is not None and 0 <= most <= epochs:
        return
    timers = [c for c in callbacks_of(trainer) if isinstance(c, Timer)]
    left = [timer.time_remaining() for timer in timers]
    if any(seconds is not None and seconds <= 0 for seconds in left):
        when = f"in epoch {epochs + 1}" if trainer.global_step else "before its first step"
        console.print(f"the time limit ended the training {when}")
