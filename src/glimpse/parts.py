"""The parts of a run, built in order: data, network, classifier, callbacks, loggers, trainer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig
from torch import nn

from glimpse.assembly import build_classifier, build_data, choose_precision, remark_on_loss
from glimpse.callbacks.checkpoints import Checkpoints
from glimpse.callbacks.epoch_record import EpochRecord
from glimpse.callbacks.progress import Progress
from glimpse.callbacks.pruning import Pruning, ShouldStop
from glimpse.callbacks.run_state import RunState
from glimpse.callbacks.skip_nonfinite import SkipNonfinite
from glimpse.callbacks.stop_on_signal import StopOnSignal
from glimpse.classifier import ImageClassifier
from glimpse.config.build import plain, require_targets
from glimpse.config.combinations import check_monitors
from glimpse.console import console
from glimpse.data.loader import EpochOrder
from glimpse.data.module import ImageDataModule
from glimpse.distributed.place import Place
from glimpse.distributed.team import Team
from glimpse.found_checkpoint import CHECKPOINTS
from glimpse.initialise import initialise
from glimpse.lightning_compat import settle, skip_empty_hooks
from glimpse.loggers.building import build_loggers
from glimpse.memory import keep_freed_memory
from glimpse.model_summary import count_parameters, layer_table
from glimpse.monitor import monitor_of
from glimpse.network import build_network, remarks_on
from glimpse.optim.optimizer import remark_on
from glimpse.precision import Precision
from glimpse.resume import Start, key_of_batches, start_of_resume
from glimpse.seeding import seed_all
from glimpse.summary import Summary
from glimpse.threads import use_one_thread_if_small
from glimpse.trainer import build_trainer, device_of, global_batch_size

FEW_STEPS = 5  # an epoch of fewer is pointed out


@dataclass(frozen=True)
class Parts:
    """The parts of a run. The summary receives its results."""

    config: DictConfig
    place: Place
    summary: Summary
    data: ImageDataModule
    start: Start | None  # of a resumed run
    precision: Precision
    classifier: ImageClassifier
    record: EpochRecord
    checkpoints: Checkpoints
    loggers: dict[str, Logger]
    trainer: pl.Trainer

    @property
    def resume_from(self) -> str | None:
        """The checkpoint that training continues from; None if it starts from the beginning."""
        return self.start.checkpoint if self.start else None


def build_parts(
    config: DictConfig,
    resolved: dict[str, Any],
    names: Mapping[str, str],
    summary: Summary,
    team: Team,
    *,
    judge: ShouldStop | None,
    afterwards: str,
) -> Parts:
    """Build the parts of a run in order: data, network, classifier, callbacks, loggers, trainer."""
    folder, device = summary.folder, device_of(config)
    settle(device)
    team.meet_after_restart(device)
    keep_freed_memory()
    require_targets(config)
    world_size = team.place.world_size
    batch_size = global_batch_size(config, world_size)
    data = _data(config, names, team)
    trains = config.task == "fit" and not config.check
    if trains:
        data.take_identity(team.agreed("identity", lambda: data.identity))
        summary.update(data_id=data.identity[:16])
    start = _resumed(config, data, batch_size, summary, team) if config.resume else None
    if trains:
        _say_if_few_steps(config, data, batch_size)
    is_resumed = start is not None and start.checkpoint is not None
    network = _new_network(config, data, is_resumed=is_resumed)
    summary.update(parameters=count_parameters(network))
    precision = _lay_out(config, network, data, device, batch_size // world_size)
    if remark := remark_on(network, config.optimizer):
        console.print(remark)
    classifier = _classifier(config, network, data)
    record = EpochRecord(folder, classifier.logged_names)
    checkpoints = Checkpoints(
        folder / CHECKPOINTS, monitor_of(config), top_k=config.checkpoints.top_k
    )
    ours = _callbacks(config, RunState(resolved, data), record, checkpoints, judge, afterwards)
    sends_nothing = config.check or (start is not None and start.is_over)
    loggers = {} if sends_nothing else build_loggers(config, folder, start)
    trainer = build_trainer(
        config, precision.name, [*loggers.values()], folder, ours, place=team.place
    )
    return Parts(
        config=config,
        place=team.place,
        summary=summary,
        data=data,
        start=start,
        precision=precision,
        classifier=classifier,
        record=record,
        checkpoints=checkpoints,
        loggers=loggers,
        trainer=trainer,
    )


def _data(config: DictConfig, names: Mapping[str, str], team: Team) -> ImageDataModule:
    """Build the data, in the first process before the others, and print what it is."""
    with team.in_turn():
        data = build_data(config)
    console.print(f"{names['data']}: {data.describe()}")
    if data.augment is not None and data.augment.remark:
        console.print(data.augment.remark)
    return data


def planned_steps_of_an_epoch(config: DictConfig, data: ImageDataModule, batch_size: int) -> int:
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
    num_steps = planned_steps_of_an_epoch(config, data, batch_size)
    if num_steps < FEW_STEPS and batch_size > 1:
        steps = "one step" if num_steps == 1 else f"{num_steps} steps"
        console.print(
            f"an epoch is {steps}: {num_images:,} training images in batches of {batch_size:,}; type a smaller "
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
    chosen = choose_precision(config, network, data.spec, device)
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


def _callbacks(
    config: DictConfig,
    state: RunState,
    record: EpochRecord,
    checkpoints: Checkpoints,
    judge: ShouldStop | None,
    afterwards: str,
) -> list[Callback]:
    """Our callbacks, in the order in which they run after the epoch's metrics."""
    stop = StopOnSignal(checkpoints, every_minutes=config.checkpoints.every_minutes)
    progress = Progress(checkpoints, record, afterwards=afterwards)
    callbacks: list[Callback] = [state, stop, record, checkpoints, progress]
    if config.on_nonfinite == "skip":
        callbacks.append(SkipNonfinite(config.max_nonfinite_steps))
    if judge:
        callbacks.append(Pruning(judge, checkpoints.monitor.name, stop))
    return callbacks
