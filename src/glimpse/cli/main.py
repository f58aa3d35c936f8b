"""The `glimpse` command.

`glimpse train` is `python train.py` (cli/entry.py). The other subcommands start a project
(cli/init.py), inspect datasets before training (cli/data.py), score a network (cli/evaluate.py),
show what it has learned (cli/insight.py), use it on new images (cli/predict.py), and compare runs
(cli/runs.py).
"""

import os
import re
import sys
from typing import Annotated, Any

import typer

from glimpse import __version__
from glimpse.cli import data as cli_data
from glimpse.cli import runs as cli_runs
from glimpse.cli.evaluate import evaluate
from glimpse.cli.init import init
from glimpse.cli.insight import confused, look, losses, shift
from glimpse.cli.predict import export, predict
from glimpse.command import in_shell
from glimpse.errors import UserError
from glimpse.files import require_current_folder
from glimpse.streams import keep_printing, lost_output
from glimpse.threads import spin_briefly

app = typer.Typer(
    help="Train with `glimpse train …` (see glimpse train --help), and inspect datasets and runs.",
    no_args_is_help=True,
    add_completion=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        print(f"glimpse {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="print the version", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    pass


@app.command(
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def train() -> None:
    """Train a model on a dataset, as `python train.py` does; see glimpse train --help."""
    from glimpse import launch  # it imports Hydra, which is slow

    # entry.py answers `glimpse train`, unless something stands before it.
    del sys.argv[1 : sys.argv.index("train") + 1]
    raise typer.Exit(launch.main())


app.add_typer(cli_data.app, name="data")
for command in (init, evaluate, confused, losses, predict, look, shift, export):
    app.command()(command)
app.add_typer(cli_runs.app)  # without a name: `glimpse report`


def main() -> int:
    """Run the command given on the command line.

    Returns:
        0 on success, 1 after an error, 2 if only `glimpse` was typed. Errors print one line.
    """
    keep_printing()
    exit_code = _run_command()
    if lost := lost_output():
        print(
            f"error: cannot write the output: {lost.strerror}: type > <a file on another disk> after "
            "the command",
            file=sys.stderr,
        )
        return exit_code or 1
    return exit_code


def _run_command() -> int:
    spin_briefly()
    try:
        require_current_folder()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sys.argv[1:] = map(_expanded, sys.argv[1:])
    try:
        return app(standalone_mode=False) or 0
    except typer.TyperException as error:
        message = " ".join(error.format_message().split()).replace("Value error, ", "")
        if setting := re.fullmatch(r"No such command '(\S+=\S*)'\.", message):
            message += f" Did you mean glimpse train {setting[1]}?"
        context = getattr(error, "ctx", None)
        if instead := _typed_instead(message, context):
            print(f"error: {message.rstrip('.')}: type {instead}", file=sys.stderr)
            return 1
        if message:  # it is empty when no command was given: typer has then printed the help
            command = context.command_path if context else "glimpse"
            is_question = message.endswith("?")
            joined = f"{message} Type" if is_question else f"{message.rstrip('.')}: type"
            print(f"error: {joined} {command} --help for an example", file=sys.stderr)
            return 1
        return error.exit_code


def _typed_instead(message: str, context: Any) -> str:
    """What to type in place of a wrong argument; empty if it is not known."""
    if re.match(r"No such option: -", message):
        files = [word for word in sys.argv[1:] if word.startswith("-") and os.path.lexists(word)]
        return in_shell(*(f"./{word}" for word in files))
    extra = re.fullmatch(r"Got unexpected extra argument(?:\(s\)|s)? \((.*)\)\.?", message)
    words = extra[1].split() if extra else []
    options = [name for one in context.command.params for name in one.opts] if context else []
    if words and "--set" in options and all("=" in word for word in words):
        return " ".join(f"--set {word}" for word in words)
    return ""


def _expanded(argument: str) -> str:
    """Expand the `~` of a path, even in `--out=~/a.png`, where a shell does not expand it."""
    option, equals, value = argument.partition("=")
    if option.startswith("--") and equals:
        return f"{option}={os.path.expanduser(value)}"
    return os.path.expanduser(argument)
