"""Train a finished run again, in a new folder, from what its folder records.

The configuration is that of the run's checkpoint, which is complete and plain data. The folder
passes the same checks as in `resume=` and in the other commands that read a checkpoint: settings of
Hydra are not taken from it, and every `_target_` has to come from a trusted package. Loggers are
left out: they change no number, and could send data elsewhere.

Equal bits need an equal number of threads and processes, so both are taken from environment.json.
same_bits.py compares the two runs.
"""

import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from glimpse.callbacks.checkpoints import to_resume_from
from glimpse.config.build import plain, require_no_library_function, targets_of
from glimpse.config.compose import composed, write_record
from glimpse.config.keys import unknown_key
from glimpse.config.trust import (
    listed_packages,
    recorded_overrides,
    require_no_place_outside,
)
from glimpse.errors import UserError
from glimpse.files import is_own_file, require_no_links_out
from glimpse.folder_lock import is_held
from glimpse.found_checkpoint import checkpoints_of
from glimpse.job import choices_of_run
from glimpse.records import CHANGED_FROM, EXTENDED_FROM, FINISHED, listed
from glimpse.run import run
from glimpse.runs.folder import one_run, summary_of
from glimpse.runs.settings import (
    MAX_EPOCHS,
    environment_of,
    overrides_of,
    recorded_choices,
    settings_of,
    to_resume,
)
from glimpse.runs.trained import overridden, recorded_config
from glimpse.streams import printable
from glimpse.text import duration
from glimpse.threads import THREADS

MOST = 1024  # threads or processes that a record may ask for
RECORD = ".hydra"


@dataclass(frozen=True)
class Repetition:
    """A training to repeat, and its new folder.

    Attributes:
        original: The run folder.
        folder: The new run folder.
        config: The configuration.
        stages: The numbers of epochs to train to, one after the other; several if the run was
            extended.
        names: The chosen file of each group.
        overrides: The overrides to record for `resume=` of the new folder.
        seconds: The duration of the original run; None if it is not recorded.
    """

    original: Path
    folder: Path
    config: DictConfig
    stages: tuple[int | None, ...]
    names: Mapping[str, str]
    overrides: Sequence[str]
    seconds: float | None

    @property
    def announcement(self) -> str:
        """A line that says what starts, and how long the original took."""
        took = "not recorded" if self.seconds is None else duration(self.seconds)
        return f"training {self.original} again in {self.folder}; the original took {took}"


def prepare(
    original: Path,
    *,
    overrides: Sequence[str] = (),
    trust: Sequence[str] = (),
    out: Path | None = None,
) -> Repetition:
    """Read and check what a run folder records.

    Args:
        original: The run folder.
        overrides: `key=value` settings that replace the run's own, such as `data_dir=/data`.
        trust: Your own packages that define the run's network or dataset.
        out: The new run folder; None: a new one in outputs/.

    Raises:
        UserError: the run has not finished, its record cannot be read or is not trusted, or the new
            folder contains something else.
    """
    found = one_run(original)
    if is_held(original):
        raise UserError(
            f"{original}: another process is working on this run: wait until it has ended"
        )
    trusted = (*trust, *listed_packages(()))
    recorded: list[str] = []
    if (original / RECORD).exists():  # runs from notebooks have none
        recorded_overrides(original, trusted)
        recorded = overrides_of(original)
    require_no_links_out(original)
    checkpoint = to_resume_from(original) if checkpoints_of(original) else None
    if checkpoint is None:
        raise UserError(f"{original} has no checkpoint, so there is nothing to compare with")
    config = _config(*checkpoint, overrides, trusted)
    summary = summary_of(original)
    _require_finished(original, summary, checkpoint[1]["glimpse"]["config"])
    if listed(summary.get(CHANGED_FROM)):
        epochs = found.settings.get(MAX_EPOCHS)
        raise UserError(
            f"{original} was stopped and continued with another trainer.max_epochs ({epochs}), and no "
            "repetition stops at the same step: type another run"
        )
    places = [word.partition("=")[2] for word in overrides if word.startswith("output_dir=")]
    config.output_dir = os.path.expanduser(places[-1]) if places else "outputs"
    _take_processes(config, environment_of(original))
    names = choices_of_run(recorded_choices(original)) | {"data": found.data, "model": found.model}
    seconds = summary.get("seconds")
    return Repetition(
        original,
        out or _new_folder(Path(config.output_dir), names),
        config,
        _stages(summary, config.trainer.max_epochs, overrides),
        names,
        [*(word for word in recorded if _is_set(word, config)), *overrides],
        float(seconds) if isinstance(seconds, int | float) else None,
    )


def _is_set(override: str, config: DictConfig) -> bool:
    """Whether the configuration has the key of an override. A resume may have replaced its group."""
    key = override.partition("=")[0].lstrip("+")
    if "." not in key or key.startswith(("~", "hydra")):
        return True
    absent = object()
    return OmegaConf.select(config, key, default=absent) is not absent


def train_again(repetition: Repetition) -> None:
    """Train, or continue where an earlier call was interrupted.

    Raises:
        UserError: the new folder contains something else, or the run fails.
        Interrupted: after Ctrl-C or SIGTERM; the same call continues.
    """
    folder, config = repetition.folder, repetition.config
    summary = _own_summary(repetition)
    if summary is None:
        hydra = {"runtime": {"choices": dict(repetition.names)}}
        overrides = OmegaConf.create(list(repetition.overrides))
        write_record(folder / RECORD, _first_config(repetition), hydra, overrides)
    _take_threads(environment_of(repetition.original))
    num_done = len(listed((summary or {}).get(EXTENDED_FROM)))
    if summary and summary.get("status") == FINISHED:
        num_done += 1
    for number, max_epochs in enumerate(repetition.stages[num_done:], num_done):
        OmegaConf.update(config, "trainer.max_epochs", max_epochs)
        config.resume = str(folder) if number or summary is not None else None
        run(config, folder, repetition.names)


def _require_finished(
    folder: Path, summary: Mapping[str, Any], recorded: Mapping[str, Any]
) -> None:
    """Require the run to have ended by itself, even if it was extended.

    Raises:
        UserError: it was stopped, or it failed.
    """
    status = str(summary.get("status", "without a summary"))
    if status == FINISHED and summary.get("max_epochs") == recorded["trainer"]["max_epochs"]:
        return
    state = "being extended" if status == FINISHED else printable(status)
    raise UserError(
        f"{folder}: expected a finished run, and this one is {state}: type {to_resume(folder)}"
    )


def _config(
    path: Path, saved: Mapping[str, Any], overrides: Sequence[str], trusted: Sequence[str]
) -> DictConfig:
    """The configuration in a checkpoint, after a check for unknown keys and untrusted packages."""
    config = recorded_config(saved["glimpse"]["config"], path, trusted)
    for group, target in targets_of(config):
        require_no_library_function(group, target, trusted)
    if config.task != "fit":
        raise UserError(f"{path}: expected a training, and this is task={config.task}")
    today = plain(composed(()))
    known = [*today, *(f"trainer.{key}" for key in today["trainer"])]
    for key in (*config, *(f"trainer.{key}" for key in config.trainer)):
        if key not in known:
            raise UserError(f"{path}: {unknown_key(str(key), known)}")
    typed = {word.partition("=")[0] for word in overrides}
    require_no_place_outside(OmegaConf.create({**config, "logger": {}}), path, typed)
    own: dict[str, Any] = {"resume": None, "check": False, "logger": {}}
    complete = today | plain(config) | own  # older runs lack newer keys
    complete["trainer"] = today["trainer"] | complete["trainer"]
    return overridden(OmegaConf.create(complete), overrides)


def _take_processes(config: DictConfig, environment: Mapping[str, Any]) -> None:
    """Make a run that torchrun or srun had started start its processes itself."""
    number = environment.get("processes")
    if (
        isinstance(number, int)
        and 1 < number <= MOST
        and isinstance(config.trainer.devices, int | str)
    ):
        OmegaConf.update(config, "trainer.devices", number)
        OmegaConf.update(config, "trainer.num_nodes", "auto")


def _take_threads(environment: Mapping[str, Any]) -> None:
    """Use as many threads as the run: sums in another number of parts are rounded differently."""
    number, processes = environment.get("threads"), environment.get("processes")
    if not (isinstance(number, int) and 0 < number <= MOST):
        return
    torch.set_num_threads(number)
    if isinstance(processes, int) and processes > 1:
        os.environ[THREADS] = str(number)  # for the other processes


def _stages(
    summary: Mapping[str, Any], last: Any, overrides: Sequence[str]
) -> tuple[int | None, ...]:
    if any(word.startswith(f"{MAX_EPOCHS}=") for word in overrides):
        return (last,)
    known = listed(summary.get(EXTENDED_FROM))
    return (*(int(number) for number in known if isinstance(number, int)), last)


def _new_folder(outputs: Path, names: Mapping[str, str]) -> Path:
    """A folder name as in conf/train.yaml. The recorded names of data and model may be any text."""
    data, model = (re.sub(r"[^\w.+-]+|^\.+", "-", names[group])[:80] for group in ("data", "model"))
    return (
        outputs / f"{data}-{model}" / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}-{secrets.token_hex(3)}"
    )


def _own_summary(repetition: Repetition) -> dict[str, Any] | None:
    """The summary of an earlier attempt in the new folder; None if there was no attempt.

    Raises:
        UserError: something else is in the folder.
    """
    folder = repetition.folder
    if not folder.exists() or not any(folder.iterdir()):
        return None
    record, ours = folder / RECORD / "config.yaml", OmegaConf.to_yaml(_first_config(repetition))
    if not is_own_file(folder, record) or record.read_text("utf-8") != ours:
        raise UserError(
            f"--out {folder}: expected a new folder, or one where this command was interrupted"
        )
    return summary_of(folder)


def _first_config(repetition: Repetition) -> DictConfig:
    """The configuration that the new folder records, with references where the original has them."""
    config = repetition.config.copy()
    typed = {word.partition("=")[0] for word in repetition.overrides}
    for key, text in settings_of(repetition.original).items():
        is_reference = "${" in text and text[0] not in "[{"
        if is_reference and key not in typed and OmegaConf.select(config, key) is not None:
            OmegaConf.update(config, key, text)
    OmegaConf.update(config, "trainer.max_epochs", repetition.stages[-1])
    config.resume = None
    return config
