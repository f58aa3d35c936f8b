"""Batches of images that are decoded on demand (`data.cache=false`), in worker processes.

The processes are those of torch's DataLoader. pulse.py detects a process that hangs.
"""

import math
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from glimpse import socket_folder
from glimpse.data.decode import PixelFormat, decode
from glimpse.data.loader import Batch
from glimpse.data.processes import ended_unexpectedly, kill, leave_stops_to_the_run
from glimpse.data.pulse import TICK, Pulse, Watch, at_work
from glimpse.errors import UserError
from glimpse.process_context import process_context, start_fork_server
from glimpse.signals import handling, receive_signals

PREFETCHED = 2  # batches that each decoding process prepares in advance
SHARED_MEMORY = Path("/dev/shm")  # through which batches pass on Linux; macOS has none


class DecodedRows(Dataset[Batch | UserError]):
    """Batches decoded from files on demand.

    As a dataset for torch's DataLoader, it returns errors, because torch wraps a raised one in a
    worker's traceback.

    Args:
        paths: The files of a part; an array of encoded paths reaches a process quickest.
        labels: (N,) int64, their labels.
        wanted: The format of the decoded images.
        num_workers: Decoding processes; 0 decodes in this process.
        pin_memory: Whether to copy batches to page-locked memory, for the transfer to a GPU.
    """

    def __init__(
        self,
        paths: Sequence[Path] | NDArray[np.bytes_],
        labels: Tensor,
        wanted: PixelFormat,
        *,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        self.paths = paths
        self.labels = labels
        self.wanted = wanted
        self.num_workers = num_workers
        self.pin_memory = pin_memory

    def __call__(self, rows: Iterator[Tensor]) -> Iterator[Batch]:
        batches = [chosen.tolist() for chosen in rows]
        shared = dict[str, Any](
            batch_sampler=batches,
            generator=torch.Generator(),  # the default would be the global one, which dropout uses
            collate_fn=_as_it_is,
            pin_memory=self.pin_memory,
        )
        if not self.num_workers:
            yield from map(_whole, DataLoader(self, **shared))
            return
        bytes_per_image = math.prod(self.wanted.shape) + 16  # with its label and index
        num_bytes = max(map(len, batches), default=0) * bytes_per_image
        _require_shared_memory(self.num_workers * PREFETCHED * num_bytes)
        context = process_context()
        socket_folder.share()
        if context.get_start_method() == "forkserver":  # the default from Python 3.14 on
            start_fork_server([__name__])  # otherwise, each process would import torch
        pulse = Pulse(self.num_workers, context)
        loader: DataLoader[Any] = DataLoader(
            self,
            **shared,
            num_workers=self.num_workers,
            prefetch_factor=PREFETCHED,
            multiprocessing_context=context,
            worker_init_fn=partial(_begin_batches, pulse),
            timeout=TICK,
        )
        yield from map(_whole, _watched(iter(loader), pulse))

    def __getitems__(self, rows: list[int]) -> Batch | UserError:
        try:
            with at_work():
                images = np.stack([self._image(row) for row in rows])
        except UserError as error:
            return error
        indices = torch.tensor(rows)
        return Batch(torch.from_numpy(images), self.labels[indices], indices)

    def _image(self, row: int) -> NDArray[np.uint8]:
        return decode(Path(os.fsdecode(self.paths[row])), self.wanted)


def _watched(batches: Any, pulse: Pulse) -> Iterator[Batch | UserError]:
    """Yield the batches of an iterator of torch's DataLoader, whose processes update this pulse."""
    watch = Watch(pulse, "data.num_workers=0, which decodes in the run itself")
    try:
        while True:
            try:
                yield next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                if "timed out" in str(error):  # torch can be asked again for the same batch
                    watch.waited()
                    continue
                if "Bus error" in str(error) and SHARED_MEMORY.is_dir():
                    raise _too_little_shared_memory() from error
                if "DataLoader worker" in str(error):  # torch reports only its process number
                    raise ended_unexpectedly() from error
                raise
    except GeneratorExit:
        raise
    except BaseException:
        _end(batches)
        raise


def _end(batches: Any) -> None:
    """Kill the processes of torch's DataLoader: it would only ask them to end, for 5 s each."""
    # Without torch's handler, which would take a killed process for a failure.
    is_handled = (
        hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    )
    with handling([signal.SIGCHLD] if is_handled else [], signal.SIG_DFL):
        kill(batches._workers)
        batches._shutdown_workers()


def _require_shared_memory(num_bytes: int) -> None:
    """Require space for batches from decoding processes; a container may have only 64 MB."""
    if SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free < num_bytes:
        raise _too_little_shared_memory(f", expected {num_bytes / 1e6:,.0f} MB")


def _too_little_shared_memory(expected: str = "") -> UserError:
    free = shutil.disk_usage(SHARED_MEMORY).free
    return UserError(
        f"/dev/shm has {free / 1e6:,.1f} MB free{expected}, for batches from decoding processes: start the "
        "container with --shm-size=1g, or type data.num_workers=0 or data.cache=true"
    )


def _whole(batch: Batch | UserError) -> Batch:
    if isinstance(batch, UserError):
        raise batch
    return batch


def _begin_batches(pulse: Pulse, worker: int) -> None:
    """Set up a process of torch's DataLoader."""
    leave_stops_to_the_run()
    receive_signals()
    socket_folder.outlive_no_other()
    pulse.begin(worker)


def _as_it_is(batch: Any) -> Batch | UserError:
    assert isinstance(batch, Batch | UserError)
    return batch
