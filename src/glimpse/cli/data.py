"""`glimpse data …`: describe a dataset, show its images, and check that every file can be read.

Each command takes the dataset's name, as in `data=NAME`, and then any overrides that
`python train.py` accepts. Heavy modules are imported only after the configuration has been composed
and checked.
"""

import contextlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimpse.cli.errors import one_line_errors, require_ending
from glimpse.cli.table import FEW_CLASSES, print_table
from glimpse.errors import UserError
from glimpse.files import make_folder
from glimpse.streams import say
from glimpse.text import by, json_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from glimpse.data.inspect.check import DatasetCheck
    from glimpse.data.inspect.headers import FileFacts
    from glimpse.data.inspect.info import Facts

NUM_ENDS = 5  # with more classes, list this many of the most and of the least frequent ones

app = typer.Typer(help="Look at datasets before training on them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="a name from `glimpse data list`", metavar="NAME")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="overrides, as for `python train.py`", metavar="KEY=VALUE"),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        "--config-dir",
        "-cd",
        help="a folder of your own configuration files, as for `python train.py`",
        show_default=False,
    ),
]


@app.command("list")
def list_(config_dir: ConfigDir = None) -> None:
    """List the datasets with a short description of each.

    Example: glimpse data list
    """
    with one_line_errors():
        files = _dataset_files(config_dir, ())
        rows = [(name, _first_sentence(file)) for name, file in sorted(files.items())]
        print_table(("name", "description"), rows)


@app.command()
def info(
    name: Name,
    overrides: Overrides = None,
    every_class: Annotated[bool, typer.Option("--all", help="list every class")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Print sizes, classes, channel statistics, duplicates, and grey or odd images.

    Downloads the dataset if it is missing and decodes it into the cache, as a training run does.

    Example: glimpse data info image_folder data.root=photos data.presize=64 data_dir=data
    """
    with _one_line_errors(name, overrides, config_dir) as config:
        # Progress messages must not end up in the JSON.
        with contextlib.redirect_stdout(sys.stderr):
            from glimpse.assembly import build_data
            from glimpse.data.inspect.info import gather_facts
            from glimpse.data.pixel_statistics import ConstantPixelsError

            if config.data.cache:  # compute the statistics for any configured normalisation
                config.data.normalize = "dataset"
            try:
                facts = gather_facts(build_data(config))
            except ConstantPixelsError:  # their mean says nothing
                config.data.normalize = "none"
                facts = gather_facts(build_data(config))
        if as_json:
            say(json_of(asdict(facts)))
        else:
            has_cache = bool(config.data.cache)
            missing = (
                "all pixels are equal" if has_cache else "there is no cache: type data.cache=true"
            )
            _print_facts(name, facts, every_class, missing)


@app.command()
def show(
    name: Name,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="the PNG to write (default: data-NAME.png)")
    ] = None,
    num: Annotated[int, typer.Option(help="number of images", min=1, max=400)] = 32,
    config_dir: ConfigDir = None,
) -> None:
    """Draw the first training batch before and after augmentation.

    Example: glimpse data show cifar10 augment=crop_flip --out cifar10.png
    """
    with _one_line_errors(name, overrides, config_dir) as config:
        path = out or Path(f"data-{name}.png")
        require_ending(path, "--out", ".png")
        make_folder(path.parent)
        from glimpse.assembly import build_data
        from glimpse.data.inspect.show import draw_batch

        draw_batch(build_data(config), path, num_images=num)
        say(path)


@app.command()
def check(name: Name, overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Process one sample and one batch step by step, then open every file and list the broken ones.

    Exits with 1 if a step fails or a file is broken.

    Example: glimpse data check image_folder data.root=photos
    """
    with _one_line_errors(name, overrides, config_dir) as config:
        import torch

        from glimpse.assembly import unprepared_data
        from glimpse.data.inspect.check import DatasetCheck
        from glimpse.trainer import device_of

        checked = DatasetCheck(unprepared_data(config), device=torch.device(device_of(config)))
        is_whole = _print_steps(checked)
        if not _print_faults(checked) or not is_whole:
            raise typer.Exit(1)


@contextlib.contextmanager
def _one_line_errors(
    name: str, overrides: Sequence[str] | None, config_dir: Path | None
) -> "Iterator[DictConfig]":
    """Yield the checked configuration; report any error in one line and exit with code 1."""
    from glimpse.config.compose import composed

    typed = [f"data={name}", *(overrides or ())]
    with one_line_errors([*typed, *_flags(config_dir)]):
        _require_one_name(name, typed, _dataset_files(config_dir, typed))
        yield composed(typed, config_dir=config_dir)


def _flags(config_dir: Path | None) -> list[str]:
    return [] if config_dir is None else ["--config-dir", str(config_dir)]


def _require_one_name(name: str, typed: Sequence[str], files: Mapping[str, Path]) -> None:
    from glimpse.config.keys import in_own_folder, unknown_choice
    from glimpse.config.places import for_a_path

    if "=" in name:
        raise UserError(f"{name}: expected a dataset name before any KEY=VALUE")
    if name not in files:
        hint = in_own_folder("data", name)
        if not hint and (typed_path := for_a_path("data", name, files)):
            remedy = typed_path.removeprefix("data=")
            hint = f"{name}: expected the name of a dataset, found a path: type {remedy}"
        raise UserError(hint or unknown_choice("data", name, sorted(files)))
    for override in typed[1:]:
        if override.startswith("data="):
            raise UserError(f"{override}: the dataset is already {name}; remove one of the two")


def _dataset_files(config_dir: Path | None, typed: Sequence[str]) -> dict[str, Path]:
    """The YAML file of each dataset. The user's files replace ours of the same name."""
    from glimpse.config.folder import config_folders, files_of
    from glimpse.config.own_files import require_own_folder

    if config_dir is not None:
        require_own_folder(config_dir)
    folders = config_folders([*typed, *_flags(config_dir)])
    return files_of("data", folders)


def _first_sentence(file: Path) -> str:
    """The first sentence of the comment at the top of a YAML file."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("# "))
    return re.split(r"(?<=\.)\s", " ".join(lines), maxsplit=1)[0]


def _print_facts(name: str, facts: "Facts", every_class: bool, missing: str) -> None:
    from glimpse.data.spec import COLOURS

    size = f"{facts.width}×{facts.height} {COLOURS[facts.channels]}"
    say(f"{name}: {size}, {len(facts.class_names)} classes\n")
    print_table(
        ("split", "images", "majority accuracy", "from"),
        [
            (split, f"{found.num_images:,}", f"{found.majority_accuracy:.4f}", found.origin)
            for split, found in facts.splits.items()
        ],
    )
    say()
    if facts.remarks:
        say("".join(f"note: {remark}\n" for remark in facts.remarks))
    _print_statistics(facts, missing)
    say()
    _print_classes(facts, every_class)
    say()
    _print_duplicates(facts)
    if facts.channels > 1:
        grey = [f"{split} {found.num_grey:,}" for split, found in facts.splits.items()]
        say(f"grey images: {', '.join(grey)}")
    if facts.files:
        _print_files(facts.files)


def _print_statistics(facts: "Facts", missing: str) -> None:
    if facts.mean is None or facts.std is None:
        say(f"mean and std: not computed, because {missing}")
        return
    say("mean and std of the pixels in [0, 1], over all images that are not held out for testing")
    channels = ("red", "green", "blue") if facts.channels == 3 else ("grey",)
    rows = zip(channels, facts.mean, facts.std, strict=True)
    print_table(("channel", "mean", "std"), [(c, f"{m:.4f}", f"{s:.4f}") for c, m, s in rows])


def _print_classes(facts: "Facts", every_class: bool) -> None:
    counts = [found.class_counts for found in facts.splits.values()]
    rows = [
        (name, *(f"{number:,}" for number in numbers))
        for name, *numbers in zip(facts.class_names, *counts, strict=True)
    ]
    if len(rows) > FEW_CLASSES and not every_class:
        in_train = facts.splits["train"].class_counts
        order = sorted(range(len(rows)), key=lambda label: -in_train[label])
        most, least = order[:NUM_ENDS], order[-NUM_ENDS:]
        left_out = f"… {len(rows) - 2 * NUM_ENDS} more (--all)"
        rows = [
            *(rows[i] for i in most),
            (left_out, *("" for _ in counts)),
            *(rows[i] for i in least),
        ]
    print_table(("class", *facts.splits), rows)


def _print_duplicates(facts: "Facts") -> None:
    counts = {
        **{f"duplicate images within {n}": s.num_repeated for n, s in facts.splits.items()},
        **{f"images of {o.second} also in {o.first}": o.num_images for o in facts.overlaps},
        "identical images with different labels": facts.num_contradictions,
    }
    lines = [f"{what}: {number:,}" for what, number in counts.items() if number]
    say("\n".join(lines) or "no duplicate images")
    for number, group in enumerate(facts.duplicates):
        for place in group:
            say(f"  {number + 1}  {place.split:5}  {place.class_name}  {place.image}")


def _print_files(files: "FileFacts") -> None:
    formats = ", ".join(f"{name} {number:,}" for name, number in files.formats.items())
    modes = ", ".join(f"{name} {number:,}" for name, number in files.modes.items())
    smallest, largest = map(by, (files.smallest, files.largest))
    sizes = f"{files.num_sizes:,} sizes, {smallest} to {largest}"
    say(f"files: {formats}; modes {modes}; {sizes if files.num_sizes > 1 else f'all {smallest}'}")
    for what, odd in files.odd.items():
        say(f"odd: {odd.count:,} {what}: {', '.join(odd.examples)}")


def _print_steps(checked: "DatasetCheck") -> bool:
    """Print each step and return whether all of them succeeded."""
    from glimpse.config.explain import explain

    for step in checked.steps():
        if step.error is not None:
            say(f"{step.name:10}  FAILED: {explain(step.error)}")
            return False
        say(f"{step.name:10}  {step.found}")
    return True


def _print_faults(checked: "DatasetCheck") -> bool:
    """Print each broken file and return whether there were none."""
    if not checked.parts:
        return True
    say(f"every image: {sum(len(part.labels) for part in checked.parts.values()):,}", flush=True)
    num_faults = 0
    for line in checked.faults():
        num_faults += 1
        say(line)
    say(f"{num_faults:,} broken" if num_faults else "no broken files")
    return num_faults == 0
