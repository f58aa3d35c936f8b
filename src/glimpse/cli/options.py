"""The options that commands on trained networks share. `trained_run` loads the network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimpse.cli.errors import elsewhere, one_line_errors, require_ending
from glimpse.command import in_shell
from glimpse.errors import UserError
from glimpse.files import make_folder, require_writable, subfolder
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
    with one_line_errors(settings or (), has_set=True):
        find_checkpoint(path)  # before torch is imported
        from glimpse.runs.trained import TrainedRun

        yield TrainedRun(path, overrides=settings or (), trust=trust or ())


def output_folder(run: Path, out: Path | None, name: str) -> Path:
    """The folder `--out`, or else the folder `name` in a run folder; created, and tested by writing.

    Raises:
        UserError: it cannot be written to.
    """
    with elsewhere("--out <another folder>"):
        if out is None:
            folder = subfolder(run, name)
        else:
            make_folder(folder := out)
        require_writable(folder)
    return folder


def output_file(run: Path, out: Path | None, folder: str, name: str) -> Path:
    """The file `--out`, or else the file `name` in a folder of a run folder, tested likewise.

    Raises:
        UserError: its folder cannot be written to, it is a folder itself, or it ends otherwise.
    """
    if out is not None and out.is_dir():
        typed = in_shell("--out", str(out / name))
        raise UserError(f"--out {out}: it is a folder, expected a file: type {typed}")
    if out is not None:
        require_ending(out, "--out", Path(name).suffix)
    with elsewhere(f"--out <another folder>/{name}"):
        if out is None:
            out = subfolder(run, folder) / name
        make_folder(out.parent)
        require_writable(out.parent)
    return out
