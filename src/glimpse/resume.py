"""Check that a checkpoint fits the run that resumes from it.

The checks run before anything in the run folder changes. The network's input must stay the same:
the data and its splits, the classes, the sizes and the normalisation. The owners of the saved state
must stay the same too: the network, the optimizer class, and the callbacks that divide parameters.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from glimpse.callbacks.checkpoints import to_resume_from
from glimpse.config.build import plain
from glimpse.config.quoting import as_value
from glimpse.data.module import ImageDataModule
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.found_checkpoint import LAST
from glimpse.runs.settings import PLACES

LONGEST_REASON = 200  # characters
SEEN_BY_THE_NETWORK = ("classes", "normalize", "presize", "fit", "size")  # keys of `data`
OF_AN_ATTEMPT = {key.partition(".")[0] for key in PLACES}  # root keys
DIVIDES_PARAMETERS = ("finetune", "frozen_features")  # keys of `callbacks`


@dataclass(frozen=True)
class Start:
    """Where a resumed run continues: after a checkpoint, or from the beginning.

    `next_step` is the lowest step that loggers receive. Values from that step on came from a
    process that was killed; they will be sent again. If `has_same_config`, the loggers know the
    configuration already. If `is_over`, nothing is left to train, and the loggers have received
    everything.
    """

    checkpoint: str | None = None
    next_step: int = 0
    has_same_config: bool = False
    is_over: bool = False


def start_of_resume(
    folder: Path, config: DictConfig, data: ImageDataModule, batch_size: int, *, had_finished: bool
) -> Start:
    """Find the newest intact checkpoint of a run folder, if there is one, and check that it fits.

    Args:
        folder: The run folder.
        config: The configuration to resume with.
        data: Its data, after `setup`.
        batch_size: Images per batch of all processes together.
        had_finished: Whether the run has finished before.

    Raises:
        UserError: all checkpoints are damaged, or the new settings do not fit them. The message
            names the key.
    """
    found = to_resume_from(folder)
    if found is None:
        return Start()
    path, saved = found
    extra, now = saved["glimpse"], plain(config)
    with named_if_it_does_not_fit(str(path)):
        _require_same_data(extra, now["data"], data)
        _require_same_parameters(saved, now)
        _require_same_batches(extra, batch_size, now["data"])
        _require_same_sampling(extra, now["data"])
        _require_enough_epochs(saved, now["trainer"]["max_epochs"])
        is_same = _of_the_run(extra["config"]) == _of_the_run(now)
        return Start(
            checkpoint=str(path.resolve()),
            next_step=int(extra["next_step"]),
            has_same_config=is_same,
            is_over=had_finished and is_same and path.name == LAST,
        )


@contextmanager
def named_if_it_does_not_fit(
    checkpoint: str | None, has_begun: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Name the checkpoint in an error that occurs while its state is checked or restored.

    Args:
        checkpoint: The path of the checkpoint; None for a new run.
        has_begun: Whether training has begun. Later errors do not concern the checkpoint.

    Raises:
        UserError: the state does not fit. The message says why.
    """
    try:
        yield
    except Exception as error:
        if checkpoint is None or has_begun() or isinstance(error, UserError):
            raise
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise UserError(
            f"{checkpoint} contains a state that does not fit this run: {type(error).__name__}: {reason}; "
            "start a new run"
        ) from error


def require_same_input(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Require the `data` settings that determine the network's input to be as in the checkpoint.

    Raises:
        UserError: a key differs. The message names the first one.
    """
    for key in SEEN_BY_THE_NETWORK:
        was, value = before.get(key), now.get(key)
        if key in before and was != value:  # the configuration of another dataset may lack a key
            raise UserError(
                f"data.{key}={as_value(value)}: the network was trained with a different value; "
                f"type data.{key}={as_value(was)}"
            )


def _require_same_data(
    saved: Mapping[str, Any], now: Mapping[str, Any], data: ImageDataModule
) -> None:
    spec = ImageSpec.from_dict(saved["spec"])
    if spec.num_classes != data.spec.num_classes:
        raise UserError(
            f"the checkpoint has {spec.num_classes} classes, but this data has "
            f"{data.spec.num_classes}: resume with the same data and data.classes"
        )
    require_same_input(saved["config"]["data"], now)
    if saved["fingerprint"] != data.fingerprint:
        raise UserError(
            "the checkpoint was trained on different data, or on a different split of it: "
            "resume with the same data, data.classes, fractions and data.split_seed"
        )
    if spec != data.spec:
        raise UserError(
            f"the checkpoint's network expects {spec}, but this data provides {data.spec}: "
            "start a new run"
        )


def _require_same_parameters(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    before = saved["glimpse"]["config"]
    for group, is_same in (
        ("model", before["model"] == now["model"]),
        ("optimizer", before["optimizer"]["_target_"] == now["optimizer"]["_target_"]),
    ):
        if not is_same:
            raise UserError(
                f"resume: the checkpoint has a different {group}; start a new run with this one"
            )
    had, has = (
        {name for name, node in (config["callbacks"] or {}).items() if node}
        for config in (before, now)
    )
    for name in DIVIDES_PARAMETERS:
        if (name in had) != (name in has):
            without = "" if name in had else "out"
            remedy = f"add {name} to callbacks" if name in had else "remove it from callbacks"
            raise UserError(f"resume: the checkpoint was trained with{without} {name}; {remedy}")
    if "training_weights" in saved and "ema" not in has:
        raise UserError(
            "resume: the checkpoint contains a moving average of the weights; keep ema in callbacks"
        )


def _of_the_run(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in OF_AN_ATTEMPT}


def key_of_batches(data: Mapping[str, Any]) -> str:
    """The key of `data` that decides the size of a batch."""
    return "batch_size" if data.get("global_batch_size") is None else "global_batch_size"


def _require_same_batches(
    saved: Mapping[str, Any], batch_size: int, now: Mapping[str, Any]
) -> None:
    was = saved["global_batch_size"]
    if saved["next_batch"]["next_batch"] and was != batch_size:
        key = key_of_batches(now)
        if now[key] != batch_size:  # there are several processes
            key = "global_batch_size"
        together = " of all processes together" if key != "batch_size" else ""
        raise UserError(
            f"resume: the checkpoint was saved within an epoch with batches of {was}, not {batch_size}"
            f"{together}; type data.{key}={was} until that epoch ends"
        )


def _require_enough_epochs(saved: Mapping[str, Any], max_epochs: int | None) -> None:
    reached = int(saved["epoch"]) + 1
    if max_epochs is not None and 0 <= max_epochs < reached:
        raise UserError(
            f"trainer.max_epochs={max_epochs}: the checkpoint was saved in epoch {reached}: type "
            f"trainer.max_epochs={reached} or more"
        )


def _require_same_sampling(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    was = saved["config"]["data"].get("sampling", "shuffle")
    if saved["next_batch"]["next_batch"] and was != now.get("sampling", "shuffle"):
        raise UserError(
            f"resume: the checkpoint was saved within an epoch with data.sampling={was}; "
            f"type data.sampling={was} until that epoch ends"
        )
