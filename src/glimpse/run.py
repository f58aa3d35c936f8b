"""The story of one run: data, network, training, measurement, record."""

import os
import shlex
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import (
    AdvancedProfiler,
    PassThroughProfiler,
    PyTorchProfiler,
    SimpleProfiler,
)
from omegaconf import DictConfig, OmegaConf
from torch import nn

from glimpse import lr_find, precision, tensorboard
from glimpse.allocator import keep_freed_memory
from glimpse.callbacks import pictures
from glimpse.callbacks.checkpoints import AtomicCheckpointIO, Checkpoints
from glimpse.callbacks.epoch_record import EpochRecord, environment, logged
from glimpse.callbacks.pictures import Pictures
from glimpse.callbacks.progress import Progress, duration
from glimpse.callbacks.stop_on_signal import StopOnSignal
from glimpse.classifier import ImageClassifier
from glimpse.config.build import build, plain
from glimpse.console import IS_FIRST_PROCESS, console, quiet_lightning
from glimpse.data.module import ImageDataModule
from glimpse.distributed import DDP_CONFIG, RUN_FOLDER
from glimpse.errors import UserError
from glimpse.files import write_json, write_text
from glimpse.model_summary import LooksAtImages, count_parameters, layer_table
from glimpse.models.pretrained import Pretrained
from glimpse.optim.optimizer import build_optimizer
from glimpse.resume import checkpoint_to_resume
from glimpse.summary import Summary, shown, summarised

HOOKS_OF_A_STEP = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def run(config: DictConfig, folder: Path, names: Mapping[str, str]) -> float | None:
    """Train a model on a dataset and leave the record in `folder`.

    Args:
        config: composed and checked.
        folder: the run folder.
        names: which `data` and `model` were chosen, for people.

    Returns:
        The best val/acc, which sweepers maximise; None without validation.

    Raises:
        UserError: anything the user can mend. `Interrupted`: after Ctrl-C or SIGTERM.
    """
    quiet_lightning()
    # Lightning 2.6 calls what torch 2.14 has renamed; nobody here can mend it.
    warnings.filterwarnings("ignore", ".*LeafSpec.*deprecated")
    # What the classifier logs at an epoch's end is summed over the processes already.
    warnings.filterwarnings("ignore", ".*sync_dist=True.*")
    torch.set_float32_matmul_precision("high")  # TF32 where fp32 meets tensor cores
    with _processes_left(folder), summarised(config, folder, names) as summary:
        device = device_of(config)
        if device == "cpu":  # or each step of Adam looks for a GPU by loading NVML anew
            os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"  # Lightning sets it to 1
        keep_freed_memory()
        data = build_data(config)
        console.print(f"{names['data']}: {data.describe()}", markup=False)
        resume_from = checkpoint_to_resume(folder, config, data) if config.resume else None
        torch.manual_seed(config.seed)
        network: nn.Module = build("model", config.model, data.spec)
        if isinstance(network, Pretrained) and resume_from is None:
            network.load_weights()
        if isinstance(network, LooksAtImages) and resume_from is None:
            network.look_at(data.some_training_images())
        summary.update(parameters=count_parameters(network))
        console.print(layer_table(network, data.spec))
        chosen = precision.choose(config.trainer.precision, network, data.spec, device)
        console.print(f"precision {chosen.name}: {chosen.reason}")
        network.to(memory_format=chosen.memory_format)
        data.memory_format = chosen.memory_format
        classifier = build_classifier(config, network, data)
        _pass_over_empty_hooks(classifier, pl.LightningModule)
        if config.compile:
            network.compile()
        record = EpochRecord(folder)
        checkpoints = Checkpoints(folder / "checkpoints")
        logger: Logger | None = build(
            "logger", config.logger, save_dir=folder, name="", version="tensorboard"
        )
        # After the epoch's metrics, in order:
        ours = [StopOnSignal(checkpoints), record, Progress(checkpoints), checkpoints]
        trainer = _trainer(config, chosen.name, logger, folder, ours)
        if config.check:
            trainer.datamodule = data  # type: ignore[attr-defined]  # as fit would, for callbacks
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                callback.setup(
                    trainer, classifier, "fit"
                )  # where they refuse what cannot be trained
            _push_one_batch(classifier, data)
            return None
        summary.accept()
        if IS_FIRST_PROCESS:
            write_json(folder / "environment.json", environment())
            if trainer.world_size > 1:
                _tell_other_processes(config, folder)
            if logger:
                tensorboard.write_start(logger, OmegaConf.to_yaml(config, resolve=True))
        if config.task == "lr_find":
            found = lr_find.find(
                config,
                classifier,
                data,
                lambda changed, test: _trainer(changed, chosen.name, None, folder, [test]),
                logger=logger,
                folder=folder,
            )
            summary.update(metrics=found)
            return None
        try:
            trainer.fit(classifier, datamodule=data, ckpt_path=resume_from, weights_only=True)
        finally:
            summary.update(
                epochs=trainer.current_epoch,
                best_epoch=checkpoints.best_epoch,
                images_per_second=record.images_per_second(),
                metrics=dict(checkpoints.best_metrics),
            )
        if config.test:
            num_trained = _num_trained_on(record, data)
            found = _final_metrics(config, trainer, classifier, data, checkpoints, num_trained)
            summary.update(metrics=summary.metrics | found)
        reported = "test" if "test/acc" in summary.metrics else "val"
        summary.update(majority_acc=data.majority_accuracy(reported))
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Pictures) and config.test:
                callback.draw_result(trainer, classifier)
        if IS_FIRST_PROCESS:
            pictures.draw_curves(trainer)
        if logger and IS_FIRST_PROCESS:
            chosen_values = tensorboard.hyperparameters(plain(config), names)
            tensorboard.write_result(logger, chosen_values, summary.metrics, trainer.global_step)
    if IS_FIRST_PROCESS:
        _print_result(config, summary, data, num_trained=_num_trained_on(record, data))
    return checkpoints.best_metrics.get("val/acc")


def build_data(config: DictConfig) -> ImageDataModule:
    """The dataset, downloaded, cached and split, with its `spec`."""
    data = unprepared_data(config)
    data.prepare_data()
    data.setup()
    return data


def unprepared_data(config: DictConfig) -> ImageDataModule:
    """The dataset before its files are looked for."""
    augment = build("augment", config.augment)
    data = build("data", config.data, data_dir=config.data_dir, seed=config.seed, augment=augment)
    assert isinstance(data, ImageDataModule)
    return data


def build_classifier(
    config: DictConfig, network: nn.Module, data: ImageDataModule
) -> ImageClassifier:
    """The network with its loss, optimizer and schedule."""
    return ImageClassifier(
        network,
        data.spec,
        loss=build("loss", config.loss),
        make_optimizer=lambda net: build_optimizer(net, config.optimizer),
        make_schedule=lambda optimizer, total_steps: build(
            "scheduler", config.scheduler, optimizer, total_steps=total_steps
        ),
        seed=config.seed,
        config=plain(config),
        fingerprint=data.fingerprint,
        tta=config.tta,
    )


def device_of(config: DictConfig) -> str:
    """What `trainer.accelerator` means here.

    Raises:
        UserError: a GPU is asked for where there is none.
    """
    asked = str(config.trainer.accelerator)
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if (asked in ("gpu", "cuda") and not (has_cuda or (asked == "gpu" and has_mps))) or (
        asked == "mps" and not has_mps
    ):
        raise UserError(f"trainer.accelerator={asked}: no such device here; type trainer=cpu")
    if asked == "cpu":
        return "cpu"
    return "cuda" if has_cuda and asked != "mps" else "mps" if has_mps else "cpu"


def _trainer(
    config: DictConfig,
    precision_name: str,
    logger: Logger | None,
    folder: Path,
    ours: list[Callback],
) -> pl.Trainer:
    arguments = dict(plain(config)["trainer"]) | {"precision": precision_name}
    if arguments["profiler"] in PROFILERS:  # into the folder, as fit-profile.txt
        arguments["profiler"] = PROFILERS[arguments["profiler"]](dirpath=folder, filename="profile")
    callbacks = [build("callbacks", node) for node in (config.callbacks or {}).values() if node]
    callbacks += ours
    for callback in callbacks:
        _pass_over_empty_hooks(callback, Callback)
    try:
        trainer = pl.Trainer(
            **arguments,
            logger=logger or False,
            callbacks=callbacks,
            default_root_dir=folder,
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (TypeError, ValueError, RuntimeError, MisconfigurationException) as error:
        raise UserError(f"trainer: {str(error).splitlines()[0]}") from error
    return trainer


def _tell_other_processes(config: DictConfig, folder: Path) -> None:
    """What the processes that DDP starts take their configuration from."""
    os.environ[RUN_FOLDER] = str(folder.resolve())
    write_text(folder / DDP_CONFIG, OmegaConf.to_yaml(OmegaConf.create(plain(config))))


def _pass_over_empty_hooks(of: object, base: type) -> None:
    """Save a tenth of a small network's step: Lightning wraps every hook of every callback in a
    profiler's context at each step, also those that do nothing; one that is None it leaves out."""
    for name in HOOKS_OF_A_STEP:
        if getattr(type(of), name) is getattr(base, name):
            setattr(of, name, None)


def _push_one_batch(classifier: ImageClassifier, data: ImageDataModule) -> None:
    """`check=true`: one batch forward and back, on the CPU."""
    batch = data.to_network(next(iter(data.loader("train", training=True))), training=True)
    loss = classifier.loss(classifier.network(batch.images), batch.labels)
    loss.backward()
    optimizer = classifier.make_optimizer(classifier.network)
    classifier.make_schedule(optimizer, 100)
    optimizer.step()
    size = "×".join(map(str, batch.images.shape))
    console.print(f"one batch of {size} went forward and back: loss {loss.item():.4f}")


def _num_trained_on(record: EpochRecord, data: ImageDataModule) -> int:
    """How many training images an epoch saw: all, unless trainer.limit_train_batches or the like ended
    each epoch early."""
    return min(record.most_images, len(data.splits["train"].rows))


def _final_metrics(
    config: DictConfig,
    trainer: pl.Trainer,
    classifier: ImageClassifier,
    data: ImageDataModule,
    checkpoints: Checkpoints,
    num_trained: int,
) -> dict[str, float]:
    """The best checkpoint's metrics on the training set, in evaluation mode, and on the test set.

    Of the training set, no more images are measured than an epoch trained on; `test=val` leaves it out.
    """
    if checkpoints.best.exists() and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        best = AtomicCheckpointIO().load_checkpoint(checkpoints.best)
        classifier.load_state_dict(best["state_dict"])
    trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]  # a profile is of training
    splits = ["val", "test"] if config.tta else ["test"]
    if config.test != "val" and num_trained:
        splits.insert(0, "train")
    metrics: dict[str, float] = {}
    for split in splits:
        if split in data.splits:
            data.score(split, num_images=num_trained if split == "train" else None)
            trainer.test(classifier, datamodule=data, verbose=False)
            found = logged(trainer)
            metrics |= {
                n: v for n, v in found.items() if n.startswith(f"{split}/") and n != "train/top5"
            }
    return metrics


def _print_result(
    config: DictConfig, summary: Summary, data: ImageDataModule, *, num_trained: int
) -> None:
    for split in ("train", "val", "test"):
        if f"{split}/acc" in summary.metrics:
            accuracy = summary.metrics[f"{split}/acc"]
            majority = data.majority_accuracy(split)
            num_images = len(data.splits[split].rows)
            part = ""
            if split == "train" and num_trained < num_images:
                part = (
                    f"  on {num_trained:,} of {num_images:,} images, as many as an epoch trained on"
                )
            console.print(
                f"{split:5} accuracy {accuracy:.4f}  (always the most frequent class: {majority:.4f})"
                f"{part}"
            )
        if f"{split}/acc_flip" in summary.metrics:
            accuracy = summary.metrics[f"{split}/acc_flip"]
            console.print(f"{split:5} accuracy {accuracy:.4f}  with each mirror image (tta=flip)")
    if "test" not in data.splits:
        console.print("no test set: the validation set chose the checkpoint and measures it")
    if summary.values["best_epoch"]:
        console.print(f"best epoch {summary.values['best_epoch']} by val/acc")
    console.print(f"run folder {shown(summary.folder)}", markup=False)
    console.print(f"curves: tensorboard --logdir {shlex.quote(config.output_dir)}", markup=False)
    console.print(f"took {duration(summary.values['seconds'])}")


@contextmanager
def _processes_left(folder: Path) -> Iterator[None]:
    """After DDP, let a sweep's next job start processes of its own."""
    variables = dict(os.environ)
    try:
        yield
    finally:
        if IS_FIRST_PROCESS:
            (folder / DDP_CONFIG).unlink(missing_ok=True)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
                os.environ.clear()
                os.environ.update(variables)
