"""`glimpse report`, `glimpse compare` and `glimpse repeat`: summarise, compare and repeat runs.

Only `repeat`, and McNemar's test at the end of `compare`, import torch and Hydra.
"""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from glimpse.cli.errors import (
    as_options,
    elsewhere,
    one_line_errors,
    require_ending,
    require_no_setting,
)
from glimpse.cli.options import Set, Trust, output_file
from glimpse.cli.table import print_table, width
from glimpse.command import in_shell
from glimpse.errors import Interrupted, UserError
from glimpse.files import make_folder, write_text
from glimpse.found_checkpoint import checkpoints_of
from glimpse.plots.curves import draw_runs
from glimpse.runs import compare as runs_compare
from glimpse.runs import page, report
from glimpse.runs.by_model import by_model
from glimpse.runs.description import describe
from glimpse.runs.folder import Run, epochs_of, find_runs, is_run, one_run
from glimpse.runs.groups import Group, group
from glimpse.runs.mattered import mattered
from glimpse.runs.range_tests import range_tests
from glimpse.signals import handle_stops
from glimpse.streams import printable, say

ANOTHER_PAGE = "--html <another folder>/report.html"
NUM_PROBLEMS = 10  # the terminal shows this many; the page lists all of them

app = typer.Typer()


class Format(StrEnum):
    """The output formats of a table."""

    table = "table"
    markdown = "markdown"
    csv = "csv"


@app.command("report")
def report_(
    folder: Annotated[
        Path, typer.Argument(help="a folder of runs, or one run folder", metavar="FOLDER")
    ] = Path("outputs"),
    html: Annotated[
        Path | None, typer.Option(help="the HTML page to write (default: FOLDER/report.html)")
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="the output format; csv is not rounded")
    ] = Format.table,
) -> None:
    """Report all runs in a table and an HTML page, grouped by setting, with mean ± std over seeds.

    For a single run, report its settings, its result, the overfitting gap and how to repeat it.

    Example: glimpse report outputs --format markdown
    """
    with one_line_errors():
        path = html or folder / "report.html"
        require_ending(path, "--html", ".html")
        root = folder.resolve()
        runs = find_runs(root)
        is_one, in_csv = is_run(root), format_ is Format.csv
        trainings = runs if is_one else [run for run in runs if run.is_training]
        if not trainings:  # all have task=lr_find
            section = range_tests(runs, root)
            assert section is not None
            if not in_csv:
                say(*section.told, "no page: none of these runs has trained", sep="\n")
            return
        with elsewhere(ANOTHER_PAGE):
            make_folder(path.parent)
        groups = group(trainings)
        if is_one and not in_csv:
            _print_run(runs[0], format_)
        else:
            _print_runs(groups, root, format_)
        found = []
        if not is_one:
            with elsewhere(ANOTHER_PAGE):
                found = [
                    by_model(groups, path.parent),
                    mattered(root, runs, path.parent),
                    range_tests(runs, root),
                ]
        sections = [section for section in found if section]
        for section in () if in_csv else sections:
            say("", *section.told, sep="\n")
        text = page.of_one(runs[0]) if is_one else page.over_all(groups, root, sections)
        with elsewhere(ANOTHER_PAGE):
            write_text(path, text)
        # Piped output must contain only the table.
        say(f"page: {path}", file=sys.stdout if format_ is Format.table else sys.stderr)


@app.command("compare")
def compare_(
    folders: Annotated[list[Path], typer.Argument(help="two run folders", metavar="RUN RUN")],
    out: Annotated[
        Path | None,
        typer.Option(help="the PNG of both runs' curves (default: in the first run's figures/)"),
    ] = None,
    settings_of_runs: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="override a setting of both runs"),
    ] = None,
    trust: Trust = None,
) -> None:
    """Compare two runs: differing settings, results, both runs' curves, and McNemar's test.

    The test compares both networks on the same images: the test set if there is one, otherwise the
    validation set.

    Example: glimpse compare outputs/digits-linear/RUN outputs/digits-mlp/RUN --out curves.png
    """
    with one_line_errors(has_set=True):
        require_no_setting(folders)
        if len(folders) != 2:
            raise UserError(
                f"expected two runs, found {len(folders)}: type glimpse compare RUN RUN"
            )
        first, second = folders
        runs = one_run(first.resolve()), one_run(second.resolve())
        path = output_file(first, out, "figures", f"compare-{runs[1].folder.name}.png")
        say(f"first:  {first}\nsecond: {second}\n")
        settings = runs_compare.differing_settings(*runs)
        if settings:
            print_table(("setting", "first", "second"), settings)
        elif all(run.settings for run in runs):
            say("the settings do not differ")
        if not all(run.settings for run in runs):
            say("the settings of at least one run are not recorded (.hydra/config.yaml)")
        say()
        print_table(("result", "first", "second", "second - first"), runs_compare.results(*runs))
        say()
        names = (
            f"{place} {run.model}" for place, run in zip(("first", "second"), runs, strict=True)
        )
        epochs = (epochs_of(run.folder) for run in runs)
        draw_runs(dict(zip(names, epochs, strict=True)), path)
        say(f"curves: {path}\n", flush=True)
        _print_agreement(first, second, settings_of_runs or (), trust or ())


@app.command("repeat")
def repeat_(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run", metavar="RUN")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="settings that replace the run's own: data_dir=/data", metavar="[KEY=VALUE]..."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="the new run folder (default: a new one in outputs)", show_default=False),
    ] = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Train a run again, in a new folder, and compare weights and metrics bit for bit.

    The configuration, the number of threads and the number of processes are those of the run.
    Loggers are left out. The exit code is 0 if the weights in best.ckpt and last.ckpt, metrics.csv
    and the results are equal. Otherwise it is 1, and the output names the first epoch, column and
    layer that differ, and the likely cause.

    Example: glimpse repeat outputs/digits-linear/2026-11-23_10-15-00-3fa2b1 data_dir=/data
    """
    typed = [*(overrides or ()), *(settings or ())]
    with one_line_errors(typed):
        one_run(run)  # before torch is imported
        from glimpse.runs.repeat import prepare, train_again
        from glimpse.runs.same_bits import compare_bits
        from glimpse.scripting import process_unchanged

        with process_unchanged():
            repetition = prepare(run, overrides=typed, trust=trust or (), out=out)
            print(printable(repetition.announcement), flush=True)
            handle_stops()
            try:
                train_again(repetition)
            except Interrupted as stop:
                more = [word for package in trust or () for word in ("--trust", package)]
                words = ["glimpse", "repeat", str(run), *typed, "--out", str(repetition.folder)]
                print(
                    f"{stop}; to continue and compare, type: {in_shell(*words, *more)}",
                    file=sys.stderr,
                )
                raise typer.Exit(stop.exit_code) from None
        found = compare_bits(run, repetition.folder, typed=typed)
        print()
        if not found.differences:
            print(f"equal, bit for bit: {', '.join(found.equal)}")
            return
        if found.equal:
            print(f"equal: {', '.join(found.equal)}")
        for line in found.differences:
            print(printable(line))
        for place, line in enumerate(found.causes):
            print(f"{'also possible' if place else 'likely cause'}: {printable(line)}")
        if not found.causes:
            print(
                "likely cause: no recorded setting differs, so perhaps an operation is not deterministic"
            )
        raise typer.Exit(1)


def _print_runs(groups: list[Group], root: Path, format_: Format) -> None:
    if format_ is Format.csv:
        say(report.as_csv(groups), end="")
        return
    columns, rows = report.table(groups)
    if format_ is Format.markdown:
        say(report.as_markdown(columns, rows), *report.heading(groups), sep="\n\n")
        return
    columns, rows, left_out = report.fitted(columns, rows, width=width())
    print_table(columns, rows)
    say()
    say(*report.heading(groups), sep="\n")
    if left_out:
        say(f"columns hidden in this narrow terminal (see the page): {', '.join(left_out)}")
    wrong = report.problems(groups)
    for run, text in wrong[:NUM_PROBLEMS]:
        say(f"{run.folder.relative_to(root)} {text}")
    if len(wrong) > NUM_PROBLEMS:
        say(f"… and {len(wrong) - NUM_PROBLEMS:,} more runs with problems (see the page)")


def _print_run(run: Run, format_: Format) -> None:
    description = describe(run)
    is_markdown = format_ is Format.markdown
    facts = (["what", "value"], [[name, value] for name, value in description.facts])
    for table in filter(None, (facts, description.results, description.recall)):
        if is_markdown:
            say(report.as_markdown(*table))
        else:
            print_table(*table)
        say()
    if is_markdown:
        say(description.gap, "", "```", *description.commands, "```", sep="\n")
        return
    say(description.gap)
    if description.commands:
        say("to repeat it:", *description.commands, sep="\n  ")


def _print_agreement(
    first: Path, second: Path, overrides: Sequence[str], trust: Sequence[str]
) -> None:
    for run in (first, second):
        if not checkpoints_of(run):
            say(f"no McNemar's test: {run} has no checkpoint")
            return
    from glimpse.data.splits import IN_WORDS
    from glimpse.runs.agreement import agreement, common_split
    from glimpse.runs.trained import TrainedRun

    try:
        one, other = (TrainedRun(run, overrides=overrides, trust=trust) for run in (first, second))
        split = common_split(one, other)
    except UserError as error:  # the comparison printed so far is still valid
        if overrides:  # they are for this test alone, so it is wanted
            raise
        say(f"no McNemar's test: {as_options(str(error))}")
        return
    both, num_images, test = agreement(one, other, split)
    neither = num_images - both - test.only_first - test.only_second
    print_table(
        (f"of {num_images:,} {IN_WORDS[split]} images", "count"),
        [
            ("both correct", f"{both:,}"),
            ("only the first correct", f"{test.only_first:,}"),
            ("only the second correct", f"{test.only_second:,}"),
            ("both wrong", f"{neither:,}"),
        ],
    )
    say(f"McNemar's exact test: p = {test.p_value:.3g} (null hypothesis: equal accuracy)")
