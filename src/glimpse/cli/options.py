"""The options that commands on trained networks share. `trained_run` loads the network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimpse.cli.errors import one_line_errors
from glimpse.files import make_folder, subfolder
from glimpse.found_checkpoint import find_checkpoint

if TYPE_CHECKING:
    from glimpse.runs.trained import TrainedRun


class SplitName(StrEnum):
    """The splits of a dataset."""

    train = "train"
    val = "val"
    test = "test"


RunPath = Annotated[
    Path,
    typer.Argument(help="a run folder (uses its best checkpoint) or a checkpoint", metavar="RUN"),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="override a setting of the run, such as data_dir=/data"
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PACKAGE",
        envvar="GLIMPSE_TRUST",
        help="your own package that defines the run's network or dataset",
    ),
]
Split = Annotated[SplitName | None, typer.Option(help="the split to use")]
Out = Annotated[Path | None, typer.Option(help="the folder to write to", show_default=False)]


@contextmanager
def trained_run(
    path: Path, settings: Sequence[str] | None, trust: Sequence[str] | None
) -> "Iterator[TrainedRun]":
    """Yield the trained run; report any error in one line and exit with code 1."""
    with one_line_errors(settings or ()):
        find_checkpoint(path)  # before torch is imported
        from glimpse.runs.trained import TrainedRun

        yield TrainedRun(path, overrides=settings or (), trust=trust or ())


def output_folder(trained: "TrainedRun", out: Path | None, name: str) -> Path:
    """The folder `--out`, or else the folder `name` in the run folder; it is created."""
    if out is None:
        return subfolder(trained.folder, name)
    make_folder(out)
    return out
