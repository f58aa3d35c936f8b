"""One run from top to bottom: data, network, training, measurement, record."""

import math
from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf
from torch import nn

from glimpse import lr_find
from glimpse.allocator import keep_freed_memory
from glimpse.assembly import build_classifier, build_data, remark_on_loss
from glimpse.callbacks import pictures
from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.callbacks.epoch_record import EpochRecord
from glimpse.callbacks.pictures import Pictures
from glimpse.callbacks.progress import Progress
from glimpse.callbacks.progressive_sizes import smaller_sizes
from glimpse.callbacks.pruning import Pruning, ShouldStop
from glimpse.callbacks.run_state import RunState
from glimpse.callbacks.skip_nonfinite import SkipNonfinite
from glimpse.callbacks.stop_on_signal import PrunedError, StopOnSignal
from glimpse.classifier import ImageClassifier
from glimpse.config.build import (
    own_packages,
    plain,
    require_known_arguments,
    require_targets,
)
from glimpse.config.combinations import check_monitors
from glimpse.console import console
from glimpse.data.loader import EpochOrder
from glimpse.data.module import ImageDataModule
from glimpse.distributed.place import Place
from glimpse.distributed.processes import gathered
from glimpse.distributed.team import Team
from glimpse.environment import environment
from glimpse.errors import UserError, first_line, interrupts_as_signals
from glimpse.files import discard_partials, require_kinds
from glimpse.folder_lock import held
from glimpse.found_checkpoint import CHECKPOINTS, LAST
from glimpse.initialise import initialise
from glimpse.lightning_compat import (
    IS_FIRST_PROCESS,
    callbacks_of,
    epochs_trained,
    set_up_callbacks,
    settle,
    skip_empty_hooks,
)
from glimpse.loggers.building import build_loggers, remember_ids
from glimpse.loggers.record import close, hyperparameters, write_result, write_start
from glimpse.measurement import beside_accuracy, final_metrics, num_trained_on
from glimpse.model_summary import count_parameters, layer_table
from glimpse.monitor import monitor_of
from glimpse.network import build_network, remarks_on
from glimpse.optim.schedules import build_schedule
from glimpse.precision import Precision, choose
from glimpse.records import ENVIRONMENT, METRICS, SUMMARY
from glimpse.result import print_result
from glimpse.resume import Start, key_of_batches, named_if_it_does_not_fit, start_of_resume
from glimpse.seeding import seed_all
from glimpse.summary import Summary, summarised
from glimpse.text import by
from glimpse.threads import threads_restored, use_one_thread_if_small
from glimpse.trainer import build_trainer, device_of, global_batch_size, num_processes

# The files that a run needs in its folder. If nothing is left to train, it does not need best.ckpt.
FILES = (SUMMARY, ENVIRONMENT, METRICS, f"{CHECKPOINTS}/{LAST}")

FEW_STEPS = 5  # an epoch of fewer is pointed out


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
        parts = _build(config, resolved, names, summary, team, judge=judge, afterwards=afterwards)
        if config.check:
            parts.set_up_callbacks()
            parts.check_schedule_and_loggers()
            _push_one_batch(parts.classifier, parts.data)
            return None
        if parts.start is not None:
            parts.set_up_callbacks()  # reject the run before its record changes
        summary.accept()
        summary.update(monitor=watched.name, mode=watched.mode)
        settings = hyperparameters(resolved, names)
        loggers = [*parts.loggers.values()]
        at_end.push(lambda kind, *_: close(loggers, failed=kind is not None))
        if IS_FIRST_PROCESS:
            parts.begin_record(settings)
        team.wait_for_all("ready")  # another process's error ends this wait, but not Lightning's
        if config.task == "lr_find":
            summary.update(metrics=parts.find_rate())
            return None
        parts.fit()
        num_trained = parts.measure()
        if IS_FIRST_PROCESS:
            pictures.draw_curves(parts.trainer)
            write_result(loggers, settings, summary.metrics, parts.trainer.global_step)
    if IS_FIRST_PROCESS:
        print_result(config, summary, parts.data, num_trained=num_trained)
    return parts.own.checkpoints.best_value


@dataclass(frozen=True)
class _Parts:
    """The parts of a run, and what they do together. The summary receives the results."""

    config: DictConfig
    place: Place
    summary: Summary
    data: ImageDataModule
    start: Start | None  # of a resumed run
    precision: Precision
    classifier: ImageClassifier
    own: "_OwnCallbacks"
    loggers: dict[str, Logger]
    trainer: pl.Trainer

    @property
    def resume_from(self) -> str | None:
        """The checkpoint that training continues from; None if it starts from the beginning."""
        return self.start.checkpoint if self.start else None

    def set_up_callbacks(self) -> None:
        """Set up the callbacks before the trainer does, so that their errors come first."""
        set_up_callbacks(self.trainer, self.classifier, self.data)

    def check_schedule_and_loggers(self) -> None:
        """`check=true`: build the schedule for about as many steps, and look at the loggers' arguments.

        A logger is not built, as it may open a run elsewhere.
        """
        batch_size = global_batch_size(self.config, self.place.world_size)
        steps = _steps_of_an_epoch(self.config, self.data, batch_size)
        ends = [self.trainer.max_steps, (self.trainer.max_epochs or 0) * steps]
        total_steps = min((end for end in ends if end >= 0), default=math.inf)
        optimizer = self.classifier.new_optimizer()
        build_schedule(optimizer, plain(self.config.scheduler), total_steps=total_steps)
        for node in (self.config.logger or {}).values():
            if node:
                require_known_arguments("logger", node)

    def begin_record(self, settings: Mapping[str, Any]) -> None:
        """Write to the run folder and to the loggers what the run starts with.

        Args:
            settings: The part of the configuration that people vary.
        """
        config, folder = self.config, self.summary.folder
        discard_partials(folder)
        if self.resume_from is not None:
            self.own.checkpoints.begin_from(Path(self.resume_from))
        self.summary.begin(
            environment(
                device=device_of(config),
                precision=self.precision.name,
                place=self.place,
                packages=own_packages(config),
            )
        )
        if self.place.world_size > 1:
            _print_batch(config, self.place)
        remember_ids(self.loggers, folder)
        as_yaml = OmegaConf.to_yaml(config, resolve=True)
        write_start(self.loggers.values(), as_yaml, settings, folder, self.start)

    def find_rate(self) -> dict[str, float]:
        """`task=lr_find`: test learning rates in place of the training, and return metrics."""
        folder = self.summary.folder
        return lr_find.find(
            self.config,
            self.classifier,
            self.data,
            lambda changed, test: build_trainer(
                changed, self.precision.name, [], folder, [test], place=self.place
            ),
            loggers=[*self.loggers.values()],
            folder=folder,
        )

    def fit(self) -> None:
        """Train. However this ends, the summary contains the results so far."""
        config, trainer, resume_from = self.config, self.trainer, self.resume_from
        with named_if_it_does_not_fit(resume_from, lambda: self.classifier.has_begun):
            try:
                trainer.fit(
                    self.classifier, datamodule=self.data, ckpt_path=resume_from, weights_only=True
                )
            except PrunedError:
                self.summary.prune()
            except MisconfigurationException as error:
                # Such as from a callback that needs a logger.
                raise UserError(f"trainer: {first_line(error)}") from error
            except ValueError as error:
                _require_validation_within_an_epoch(config, trainer, error)
                raise
            finally:
                self.summary.update(
                    epochs=epochs_trained(trainer),
                    best_epoch=self.own.checkpoints.best_epoch,
                    images_per_second=self.own.record.images_per_second(),
                    metrics=dict(self.own.checkpoints.best_metrics),
                )
                if config.on_nonfinite == "skip":
                    self.summary.update(skipped_steps=self.classifier.num_skipped)
        _say_if_time_ran_out(config, trainer)

    def measure(self) -> int:
        """Measure the best checkpoint and draw it.

        Returns:
            The number of images that an epoch trains on.
        """
        config, trainer, checkpoints = self.config, self.trainer, self.own.checkpoints
        num_trained = num_trained_on(self.own.record, self.data)
        is_tested = config.test and not self.summary.is_pruned
        if is_tested:
            found = final_metrics(
                config, trainer, self.classifier, self.data, checkpoints, num_trained
            )
            self.summary.update(metrics=self.summary.metrics | found)
        beside = beside_accuracy(self.summary, self.classifier, self.data, checkpoints)
        self.summary.update(**beside)
        for callback in callbacks_of(self.trainer):
            if isinstance(callback, Pictures) and is_tested:
                callback.draw_result(trainer, self.classifier)
        return num_trained


def _build(
    config: DictConfig,
    resolved: dict[str, Any],
    names: Mapping[str, str],
    summary: Summary,
    team: Team,
    *,
    judge: ShouldStop | None,
    afterwards: str,
) -> _Parts:
    """Build the parts of a run in order: data, network, classifier, callbacks, loggers, trainer."""
    folder, device = summary.folder, device_of(config)
    settle(device)
    team.meet_after_restart(device)
    keep_freed_memory()
    require_targets(config)
    world_size = team.place.world_size
    batch_size = global_batch_size(config, world_size)
    data = _data(config, names, team)
    if config.task == "fit" and not config.check:
        data.take_identity(team.agreed("identity", lambda: data.identity))
        summary.update(data_id=data.identity[:16])
    start = _resumed(config, data, batch_size, summary, team) if config.resume else None
    if config.task == "fit" and not config.check:
        _say_if_few_steps(config, data, batch_size)
    is_resumed = start is not None and start.checkpoint is not None
    network = _new_network(config, data, is_resumed=is_resumed)
    summary.update(parameters=count_parameters(network))
    precision = _lay_out(config, network, data, device, batch_size // world_size)
    classifier = _classifier(config, network, data)
    state = RunState(resolved, data)
    own = _own_callbacks(config, folder, classifier, state, judge=judge, afterwards=afterwards)
    sends_nothing = config.check or (start is not None and start.is_over)
    loggers = {} if sends_nothing else build_loggers(config, folder, start)
    trainer = build_trainer(
        config, precision.name, [*loggers.values()], folder, own.callbacks, place=team.place
    )
    return _Parts(
        config=config,
        place=team.place,
        summary=summary,
        data=data,
        start=start,
        precision=precision,
        classifier=classifier,
        own=own,
        loggers=loggers,
        trainer=trainer,
    )


def _for_the_others(
    resolved: Mapping[str, Any], folder: Path, names: Mapping[str, str]
) -> dict[str, Any]:
    """The message to the other processes, which build no network for `check=true`."""
    if resolved["check"]:
        return {"exit": 0, "error": ""}
    return {"config": resolved, "folder": str(folder.resolve()), "names": dict(names)}


def _data(config: DictConfig, names: Mapping[str, str], team: Team) -> ImageDataModule:
    """Build the data, in the first process before the others, and print what it is."""
    with team.in_turn():
        data = build_data(config)
    console.print(f"{names['data']}: {data.describe()}")
    if data.augment is not None and data.augment.remark:
        console.print(data.augment.remark)
    return data


def _print_batch(config: DictConfig, place: Place) -> None:
    nodes = f" on {place.num_nodes} nodes" if place.num_nodes > 1 else ""
    batch_size = global_batch_size(config, place.world_size)
    console.print(
        f"{place.world_size} processes{nodes} × {batch_size // place.world_size} images = "
        f"{batch_size} in a batch; optimizer.lr={config.optimizer.lr:g} is not scaled to it"
    )


def _steps_of_an_epoch(config: DictConfig, data: ImageDataModule, batch_size: int) -> int:
    """The steps of an epoch that nothing limits."""
    num_images = len(data.splits["train"].rows)
    num_batches = len(EpochOrder(num_images, batch_size=batch_size, training=True))
    return -(-num_batches // int(config.trainer.get("accumulate_grad_batches") or 1))


def _say_if_few_steps(config: DictConfig, data: ImageDataModule, batch_size: int) -> None:
    """Say that nothing is trained, or few steps per epoch; a network then learns little in ten."""
    limits = ("max_epochs", "max_steps", "limit_train_batches")
    if limit := next((key for key in limits if config.trainer.get(key) == 0), None):
        console.print(
            f"trainer.{limit}=0 trains nothing: the accuracy is that of the initial weights"
        )
        return
    num_images = len(data.splits["train"].rows)
    num_steps = _steps_of_an_epoch(config, data, batch_size)
    if num_steps < FEW_STEPS and batch_size > 1:
        steps = "one step" if num_steps == 1 else f"{num_steps} steps"
        console.print(
            f"an epoch is {steps}: {num_images} training images in batches of {batch_size}; type a smaller "
            f"data.{key_of_batches(config.data)} for more steps"
        )


def _resumed(
    config: DictConfig, data: ImageDataModule, batch_size: int, summary: Summary, team: Team
) -> Start:
    """Where a resumed run continues; the first process decides for all."""

    def find() -> dict[str, Any]:
        finished = summary.had_finished
        return asdict(
            start_of_resume(summary.folder, config, data, batch_size, had_finished=finished)
        )

    start = Start(**team.agreed("resume", find))
    if start.is_over:
        console.print(
            "the run has finished, so this only repeats its final evaluation; a higher "
            "trainer.max_epochs extends it"
        )
    return start


def _new_network(config: DictConfig, data: ImageDataModule, *, is_resumed: bool) -> nn.Module:
    """Build the network, set initial weights that are not random, and print its layers."""
    seed_all(config.seed)
    network = build_network(config.model, data.spec)
    for remark in remarks_on(network, data.spec):
        console.print(remark)
    if not is_resumed:
        initialise(network, data, config.model.get("weights"))
    console.print(layer_table(network, data.spec, every_layer=config.check))
    return network


def _lay_out(
    config: DictConfig, network: nn.Module, data: ImageDataModule, device: str, batch_size: int
) -> Precision:
    """Choose precision, memory layout and threads for this batch size, and print the choice."""
    sizes = smaller_sizes(config, data.spec)
    chosen = choose(config.trainer.precision, network, data.spec, device, smaller=sizes)
    console.print(f"precision {chosen.name}: {chosen.reason}")
    pixels = batch_size * data.spec.height * data.spec.width
    if device == "cpu" and use_one_thread_if_small(pixels, count_parameters(network)):
        console.print("one thread: more threads do not speed up such small batches")
    network.to(memory_format=chosen.memory_format)
    data.batches.lay_out(chosen.memory_format)
    return chosen


def _classifier(config: DictConfig, network: nn.Module, data: ImageDataModule) -> ImageClassifier:
    """Build the classifier, compiled if asked, whose metrics include those that are watched."""
    classifier = build_classifier(config, network, data)
    if remark := remark_on_loss(classifier.loss, network, data.spec):
        console.print(remark)
    if config.task == "fit":
        check_monitors(plain(config), classifier.logged_names)
    skip_empty_hooks(classifier)
    if config.compile:
        classifier.compile_steps("default" if config.compile is True else config.compile)
    return classifier


@dataclass(frozen=True)
class _OwnCallbacks:
    """Our callbacks, in the order in which they run after the epoch's metrics."""

    record: EpochRecord
    checkpoints: Checkpoints
    callbacks: list[Callback]


def _own_callbacks(
    config: DictConfig,
    folder: Path,
    classifier: ImageClassifier,
    state: RunState,
    *,
    judge: ShouldStop | None,
    afterwards: str,
) -> _OwnCallbacks:
    watched, saving = monitor_of(config), config.checkpoints
    record = EpochRecord(folder, classifier.logged_names)
    checkpoints = Checkpoints(folder / CHECKPOINTS, watched, top_k=saving.top_k)
    stop = StopOnSignal(checkpoints, every_minutes=saving.every_minutes)
    progress = Progress(checkpoints, record, afterwards=afterwards)
    callbacks: list[Callback] = [state, stop, record, checkpoints, progress]
    if config.on_nonfinite == "skip":
        callbacks.append(SkipNonfinite(config.max_nonfinite_steps))
    if judge:
        callbacks.append(Pruning(judge, watched.name, stop))
    return _OwnCallbacks(record, checkpoints, callbacks)


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


def _push_one_batch(classifier: ImageClassifier, data: ImageDataModule) -> None:
    """`check=true`: process one batch, forward and backward, on the CPU."""
    batch = data.batches.to_network(
        next(iter(data.batches.loader("train", training=True))), training=True
    )
    loss = classifier.loss_of(classifier.network(batch.images), batch.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    classifier.new_optimizer().step()
    size = by(batch.images.shape)
    console.print(f"one batch of {size}, forward and backward: loss {loss.item():.4f}")
