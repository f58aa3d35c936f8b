"""Train and load from Python: `from glimpse import train, load`.

A run from Python is the same as a run of `python train.py` with the same overrides, in the same
kind of folder. It leaves the process as it was: Hydra, signal handlers, warnings, environment
variables and random generators.
"""

import logging
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from glimpse.config.combinations import require_one_batch_size
from glimpse.config.compose import composed_with_hydra, hydra_for, write_record
from glimpse.config.explain import explain, is_foreseen
from glimpse.config.flags import require_their_use
from glimpse.config.folder import CONFIG_DIR, CONFIG_NAME, ROOT
from glimpse.config.keys import check_hydra_keys
from glimpse.config.recorded import with_recorded
from glimpse.config.trust import UntrustedError, untrusted
from glimpse.distributed.member import follow
from glimpse.distributed.place import place_of
from glimpse.errors import Interrupted, UserError
from glimpse.job import run_in
from glimpse.signals import stop_signals
from glimpse.threads import spin_briefly

if TYPE_CHECKING:
    from glimpse.runs.trained import TrainedRun

LOGGERS = ("lightning.pytorch", "lightning.fabric")  # which a run makes quiet


def train(
    *overrides: str, config_dir: str | Path | None = None, config_name: str | None = None
) -> "TrainedRun":
    """Train as `python train.py <overrides>` does, and load the run's best checkpoint.

    Example: run = train("model=mlp", "data=digits", "trainer.max_epochs=2")

    Args:
        overrides: As on the command line, one string each, without flags. `resume=<run folder>`
            continues a run.
        config_dir: A folder of configuration files in addition to ours, as with `--config-dir`.
        config_name: The root configuration in it, such as "project", as with `--config-name`.

    Returns:
        The run with its `metrics`, `curves`, `model`, `data`, `folder`, and `predict(images)`.

    Raises:
        UserError: an override is wrong, or the run cannot start or continue.
        KeyboardInterrupt: after Ctrl-C. The run can be resumed.
    """
    with process_unchanged():
        place = place_of(os.environ)
        if place.rank > 0:  # torchrun runs the script in every process
            sys.exit(follow(place))
        config, folder = run(
            overrides, config_dir=config_dir, config_name=config_name, is_returned=True
        )
        from glimpse.config.build import packages_of
        from glimpse.runs.trained import TrainedRun

        return TrainedRun(folder, trust=packages_of(config))


def load(
    path: str | Path, *, overrides: Sequence[str] = (), trust: Sequence[str] = ()
) -> "TrainedRun":
    """Load the network of a run folder or a checkpoint.

    Example: load("outputs/digits-mlp/2026-11-23_10-15-00-3fa2b1").predict("seven.png")[0].label

    Args:
        path: A run folder, whose best checkpoint is loaded, or a checkpoint.
        overrides: Settings that replace the run's own, such as `data_dir=/data`.
        trust: Your own packages that the checkpoint may name.

    Raises:
        UserError: there is no checkpoint, it is damaged, or it names a package that is not trusted.
    """
    for name, given in {"overrides": overrides, "trust": trust}.items():
        if isinstance(given, str):
            raise UserError(f'load(…, {name}="{given}"): expected a list: type {name}=["{given}"]')
    with process_unchanged():
        from glimpse.runs.trained import TrainedRun

        try:
            return TrainedRun(path, overrides=overrides, trust=trust)
        except UntrustedError as error:
            remedy = 'load(…, trust=["{}"])'
            raise UserError(untrusted(error.place, error.target, remedy)) from None


def run(
    overrides: Sequence[str],
    *,
    config_dir: str | Path | None = None,
    config_name: str | None = None,
    folder: Path | None = None,
    is_returned: bool = False,
) -> tuple[DictConfig, Path]:
    """Compose, check and run.

    Args:
        overrides: As on the command line.
        config_dir: A folder of configuration files in addition to ours.
        config_name: The root configuration in it; None: ours.
        folder: The run folder, without a record of the configuration; None: as on the command line.
        is_returned: Whether the caller loads a checkpoint of the run.

    Returns:
        The configuration and the run folder.
    """
    for word in overrides:
        if not isinstance(word, str):
            raise UserError(f'{word!r}: expected overrides as text, such as "model=mlp"')
    flags = [word for word in overrides if word.startswith("-")]
    if flags:
        raise UserError(f"{flags[0]}: expected overrides such as model=mlp, without flags")
    files = [CONFIG_DIR[0], str(config_dir)] if config_dir else []
    files += [CONFIG_NAME[0], config_name] if config_name else []
    try:
        with hydra_for(Path(config_dir) if config_dir else None):
            require_their_use((), overrides)
            words = with_recorded(list(overrides), files)
            config, settings = composed_with_hydra(words, root=config_name or ROOT)
            check_hydra_keys(settings)
            require_one_batch_size(config, settings.overrides.task)  # before anything is written
            if is_returned:
                _require_checkpoint(config)
            place = folder or Path(settings.run.dir)
            if folder is None and settings.output_subdir:
                record = place / settings.output_subdir
                write_record(record, config, settings, settings.overrides.task)
    except Exception as error:
        if not is_foreseen(error):
            raise
        typed = [*files, *overrides]
        message = str(error) if isinstance(error, UserError) else explain(error, typed)
        for_a_script = re.sub(r"\b(type|or) -m [^;:]*", _call_again, message)
        if isinstance(error, UserError) and for_a_script == message:
            raise
        raise UserError(for_a_script) from None
    with _command_recorded([*files, *words]):
        try:
            run_in(config, settings, place)
        except Interrupted as stop:
            raise KeyboardInterrupt(str(stop)) from None
    return config, place


@contextmanager
def _command_recorded(words: Sequence[str]) -> Iterator[None]:
    """Let the run record these overrides, which a later resume keeps, as its command line."""
    before = list(sys.argv)
    sys.argv[1:] = words
    try:
        yield
    finally:
        sys.argv[:] = before


def _call_again(advice: re.Match[str]) -> str:
    """What a script does in place of a sweep."""
    return f"{'or ' if advice[1] == 'or' else ''}call train once for each value"


def _require_checkpoint(config: DictConfig) -> None:
    """Reject a configuration that trains nothing that could be loaded.

    Raises:
        UserError: it saves no checkpoint.
    """
    trainer = config.trainer
    saves_nothing = {
        "check=true": config.check,
        f"task={config.task}": config.task != "fit",
        f"trainer.fast_dev_run={str(trainer.fast_dev_run).lower()}": trainer.fast_dev_run,
        "trainer.max_epochs=0": trainer.max_epochs == 0,
        "trainer.max_steps=0": trainer.max_steps == 0,
        "trainer.limit_train_batches=0": trainer.limit_train_batches == 0,
    }
    for setting, is_set in saves_nothing.items():
        if is_set:
            raise UserError(
                f"{setting} saves no checkpoint, expected a run to return: remove {setting}"
            )


@contextmanager
def process_unchanged() -> Iterator[None]:
    """Restore, after the block, all that a run changes in its process."""
    environment = dict(os.environ)
    spin_briefly()
    import torch

    from glimpse.seeding import restore, state_of_generators

    in_main_thread = threading.current_thread() is threading.main_thread()
    signals = stop_signals() if in_main_thread else ()
    handlers = {number: signal.getsignal(number) for number in signals}
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generators = state_of_generators(device)
    precision = torch.get_float32_matmul_precision()
    deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        with warnings.catch_warnings():
            yield
    finally:
        torch.backends.cudnn.benchmark = benchmark
        # Where neither holds, this would import the compiler for nothing.
        if torch.are_deterministic_algorithms_enabled() or deterministic:
            torch.use_deterministic_algorithms(deterministic, warn_only=only_warns)
        torch.set_float32_matmul_precision(precision)
        restore(generators, device)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)
