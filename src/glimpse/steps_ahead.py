"""Train several batches for each one that Lightning sees, if steps are short.

Lightning's Python costs a few tenths of a millisecond per batch, as much as the whole step of a
small network, or of a large one on a fast GPU. Therefore, the training batches come in chunks. This
file trains all batches of a chunk except the last, with `ImageClassifier.step_ahead`, and counts
them in Lightning's own progress. Lightning trains the last one. A chunk takes about
`CHUNK_SECONDS`, but a step of `LONG_STEP` or more forms a chunk alone. A chunk ends where Lightning
has something to do: at the end of an epoch, before a validation, and at the last of
`trainer.max_steps`. If the steps of a chunk are slower than expected, it ends after `MOST_SECONDS`,
so that a signal to stop, `trainer.max_time` and `checkpoints.every_minutes` never wait longer. The
length of a chunk never changes a result.

Lightning trains every batch itself if something must see each of them: a strategy for several
processes, accumulated gradients, a loss scaler, a profiler, an optimizer that evaluates the loss
itself, or a callback with a hook for every batch. A callback that only needs to see the end of each
chunk sets `sees_chunks = True`. If it has a method `on_step_ahead(trainer, pl_module)`, this is
called after each step that Lightning does not see.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.optim import LBFGS

from glimpse.config.trust import is_from
from glimpse.console import console
from glimpse.data.loader import Batch, BatchLoader
from glimpse.lightning_compat import (
    batches_until_seen,
    callbacks_of,
    has_hook_of_a_step,
    loss_scaler,
    note_step_ahead,
    writes_profile,
)

CHUNK_SECONDS = 0.1
LONG_STEP = 0.02  # seconds; Lightning's Python then costs less than a fiftieth
MOST_SECONDS = 0.5
LONGEST_CHUNK = 128  # batches


class StepsAhead:
    """The training batches that Lightning sees: the last of each chunk of the loader's batches."""

    def __init__(self, loader: BatchLoader, trainer: pl.Trainer) -> None:
        self.loader = loader
        self._trainer = trainer
        self._has_said_why = False
        self._wanted = 1  # the length of the next chunk, if nothing ends it early

    def __len__(self) -> int:
        """The number of all batches."""
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.loader)
        reason = why_one_by_one(self._trainer)
        if reason is not None:
            if reason and not self._has_said_why:
                console.print(f"batches are trained one by one: {reason}")
                self._has_said_why = True
            yield from batches
            return
        callbacks = callbacks_of(self._trainer)
        followers = [c.on_step_ahead for c in callbacks if hasattr(c, "on_step_ahead")]
        length, done = 1, 0  # the first batch is Lightning's, for what callbacks do at the start
        began = time.perf_counter()
        for batch in batches:
            done += 1
            if done < length and time.perf_counter() - began < MOST_SECONDS:
                self._train(batch, followers)
                continue
            yield batch
            now = time.perf_counter()
            # The first chunk of an epoch is one batch, and its last one may be short.
            last = max(done, self._wanted)
            self._wanted = chunk_length((now - began) / done, last)
            length = min(self._wanted, batches_until_seen(self._trainer))
            done, began = 0, now

    def _train(self, batch: Batch, followers: Sequence[Callable[..., None]]) -> None:
        trainer = self._trainer
        module: Any = trainer.lightning_module
        module.step_ahead(batch)
        note_step_ahead(trainer)
        for follow in followers:
            follow(trainer, module)

    def state_dict(self, *, is_over: bool = False) -> dict[str, int]:
        """Return the position of the loader, for a checkpoint; `is_over` if the epoch has ended."""
        return self.loader.state_dict(is_over=is_over)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from the position in a checkpoint."""
        self.loader.load_state_dict(state)


def chunk_length(seconds: float, last: int) -> int:
    """The number of batches in the next chunk, at most twice as many as in the last.

    A GPU only queues its first steps, so they seem shorter than they are. The true time shows once
    the queue is full, before chunks have become long.

    Args:
        seconds: The time of one batch, the mean over the last chunk.
        last: The length of the last chunk.
    """
    if seconds >= LONG_STEP:
        return 1
    wanted = int(CHUNK_SECONDS / max(seconds, 1e-6))
    return max(1, min(wanted, 2 * last, LONGEST_CHUNK))


def why_one_by_one(trainer: pl.Trainer) -> str | None:
    """Why Lightning must see every batch: text for the user, or ""; None if it need not."""
    if (
        not hasattr(trainer.lightning_module, "step_ahead")  # not our module
        or not isinstance(trainer.strategy, SingleDeviceStrategy)
        or trainer.accumulate_grad_batches > 1
        or loss_scaler(trainer) is not None
        or writes_profile(trainer)
    ):
        return ""
    [optimizer] = trainer.optimizers
    kind = type(optimizer)
    if not is_from(kind.__module__, ("torch", "glimpse")) or isinstance(optimizer, LBFGS):
        return f"optimizer {kind.__name__} may evaluate the loss itself"
    if optimizer._optimizer_step_pre_hooks:  # Lightning computes the gradients within the step
        return f"optimizer {kind.__name__} has a hook before each step"
    asking = [type(callback) for callback in callbacks_of(trainer) if _asks(callback)]
    if not asking:
        return None
    foreign = [kind.__name__ for kind in asking if not kind.__module__.startswith("glimpse.")]
    if len(foreign) > 1:
        return f"the callbacks {' and '.join(foreign)} have a hook for each batch"
    return f"the callback {foreign[0]} has a hook for each batch" if foreign else ""


def _asks(callback: Callback) -> bool:
    """Whether a callback has a hook for every batch and does not set `sees_chunks`."""
    kind = type(callback)  # a subclass may add hooks
    if kind is Timer or vars(kind).get("sees_chunks", False):
        return False
    return has_hook_of_a_step(callback)
