"""Learning-rate schedules that adapt to the length of the run.

A schedule multiplies the optimizer's `lr` by a factor that is a pure function of the step (or, for
`step`, of the epoch). A resumed run therefore uses the right value without saved state, even if it
is extended. Only `plateau` keeps state. config/schema.py states the ranges of the arguments.
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from glimpse.config.build import build, parameters_of, require_target
from glimpse.errors import UserError
from glimpse.monitor import TIES


@dataclass(frozen=True)
class Schedule:
    """A scheduler and its interval: "step" (each batch), "epoch", or "validation".

    "validation" steps by the metric `monitor`, val/loss by default, at the end of an epoch.
    """

    scheduler: LRScheduler | ReduceLROnPlateau
    interval: str
    monitor: str = TIES


# What a plateau schedule has seen, in contrast to its settings.
PROGRESS_OF_A_PLATEAU = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


def build_schedule(
    optimizer: Optimizer, config: Mapping[str, Any], *, total_steps: float
) -> Schedule:
    """Build a schedule: a function in this file, or a scheduler from torch or the user's own code.

    Args:
        optimizer: Its learning rates are scheduled.
        config: `_target_` and its arguments. For a scheduler, `interval` is our own key: "step" or
            "epoch". A `total_steps` or `T_max` that is missing becomes the length of the run in
            steps; the interval is then "step", otherwise "epoch". A ReduceLROnPlateau is stepped
            by `monitor`, also our own key, or val/loss.
        total_steps: The steps of the run; may be infinite.

    Raises:
        UserError: the scheduler rejects its arguments, or the run has no end but needs one.
    """
    arguments = dict(config)
    found = require_target("scheduler", str(arguments["_target_"]))
    parameters = parameters_of(found)
    filled = {
        name
        for name in ("total_steps", "T_max")
        if name in parameters and arguments.get(name) is None and "epochs" not in arguments
    }
    interval = arguments.get("interval")
    if "interval" not in parameters:
        arguments.pop("interval", None)
    monitor = arguments.pop("monitor", None) if "monitor" not in parameters else None
    if filled and inspect.isclass(found):  # a function checks itself whether it needs an end
        _require_end(total_steps)
        total_steps = int(total_steps)
    arguments |= dict.fromkeys(filled, total_steps)
    made = build("scheduler", arguments, optimizer)
    if isinstance(made, Schedule):
        return made
    if isinstance(made, ReduceLROnPlateau):
        if interval not in (None, "validation"):
            raise UserError(
                f"scheduler.interval={interval}: ReduceLROnPlateau steps after each validation; remove it"
            )
        return Schedule(made, "validation", _watched(made, monitor))
    if monitor is not None:
        raise UserError(
            f"scheduler.monitor={monitor}: only ReduceLROnPlateau watches a metric; remove it"
        )
    interval = interval or ("step" if filled else "epoch")
    if interval not in ("step", "epoch"):
        raise UserError(f"scheduler.interval={interval}: expected step or epoch")
    return Schedule(made, interval)


def _watched(plateau: ReduceLROnPlateau, monitor: str | None) -> str:
    """The metric that a user's ReduceLROnPlateau watches.

    Raises:
        UserError: it would wait for a loss to rise.
    """
    name = monitor or TIES
    if plateau.mode == "max" and name.rpartition("/")[2].startswith("loss"):
        raise UserError(
            f"scheduler.mode=max expects {name} to rise: add monitor: val/acc to the scheduler's YAML file"
        )
    return name


def constant(optimizer: Optimizer) -> Schedule:
    """Keep the optimizer's `lr` throughout."""
    return Schedule(LambdaLR(optimizer, lambda epoch: 1.0), "epoch")  # nothing to do at each step


def cosine(
    optimizer: Optimizer, *, total_steps: float, warmup_fraction: float, final_factor: float
) -> Schedule:
    """Warm up linearly over `warmup_fraction` of all steps, then decay to `final_factor`·lr.

    The decay is half a cosine. The rate reaches its final value after the last step, which still
    uses a slightly higher one.

    Loshchilov and Hutter 2017, SGDR, equation 5, without restarts.
    """
    _require_end(total_steps)
    warmup_steps = round(warmup_fraction * total_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        done = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * done)) / 2

    return Schedule(LambdaLR(optimizer, factor), "step")


def onecycle(
    optimizer: Optimizer,
    *,
    total_steps: float,
    warmup_fraction: float,
    start_factor: float,
    final_factor: float,
    anneal_strategy: str,
) -> Schedule:
    """Increase from `start_factor`·lr to lr, then decrease to `final_factor`·lr.

    The rate reaches its final value after the last step, which still uses a slightly higher one.

    Smith and Topin 2018, Super-Convergence. Momentum stays constant. The `anneal_strategy` is
    "linear" for their straight lines, or "cos" for fastai's half cosines.
    """
    _require_end(total_steps)
    peak = warmup_fraction * total_steps

    def between(first: float, last: float, done: float) -> float:
        done = min(1.0, done)
        left = 1 - done if anneal_strategy == "linear" else (1 + math.cos(math.pi * done)) / 2
        return last + (first - last) * left

    def factor(step: int) -> float:
        if step < peak:
            return between(start_factor, 1.0, step / peak)
        return between(1.0, final_factor, (step - peak) / max(1.0, total_steps - peak))

    return Schedule(LambdaLR(optimizer, factor), "step")


def step(optimizer: Optimizer, *, every: int, factor: float) -> Schedule:
    """Multiply by `factor` every `every` epochs."""
    return Schedule(LambdaLR(optimizer, lambda epoch: factor ** (epoch // every)), "epoch")


def plateau(
    optimizer: Optimizer, *, patience: int, factor: float, monitor: str, mode: str
) -> Schedule:
    """Multiply by `factor` after more than `patience` validations without a better `monitor`.

    Only the last validation of an epoch counts. With a patience of 1, the rate falls after two.
    """
    if mode not in ("min", "max"):
        raise UserError(f"scheduler.mode={mode}: expected min or max")
    direction: Literal["min", "max"] = "min" if mode == "min" else "max"
    reduce = ReduceLROnPlateau(optimizer, mode=direction, patience=patience, factor=factor)
    return Schedule(reduce, "validation", monitor)


def continue_plateau(
    scheduler: ReduceLROnPlateau,
    state: Mapping[str, Any],
    *,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
) -> None:
    """Restore the state of a plateau schedule from a checkpoint, but keep the new settings.

    A schedule that watches another metric starts afresh. Its configuration was `before` in the
    checkpoint, and is `now` in the resumed run.
    """
    if before == now:
        scheduler.load_state_dict(dict(state))
    elif all(before.get(key) == now.get(key) for key in ("_target_", "monitor", "mode")):
        scheduler.load_state_dict({key: state[key] for key in PROGRESS_OF_A_PLATEAU})


def _require_end(total_steps: float) -> None:
    if math.isinf(total_steps):
        raise UserError(
            "scheduler: the run has no end: type trainer.max_epochs=<number> or trainer.max_steps=<number>"
        )
