"""Build the loggers of a run, so that each writes into the run folder and continues after a resume.

`loggers.json` in the run folder holds the ids of the run in wandb and MLflow.
"""

import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from omegaconf import DictConfig

from glimpse.config.build import build, parameters_of, require_target
from glimpse.console import console
from glimpse.files import require_inside, write_json
from glimpse.lightning_compat import IS_FIRST_PROCESS
from glimpse.loggers.guard import forgiving, guard
from glimpse.records import METRICS, UnreadableError, json_or_empty, read_rows
from glimpse.resume import Start
from glimpse.text import as_utf8

IDS = "loggers.json"


def build_loggers(
    config: DictConfig, folder: Path, start: Start | None = None
) -> dict[str, Logger]:
    """Build the loggers by name.

    Args:
        config: The configuration of the run. In `logger`, null turns a logger off.
        folder: The run folder.
        start: Where a resumed run continues; None for a new run. TensorBoard and the CSV file drop
            all they received after this point, because they will receive it again.

    Raises:
        UserError: a logger's package is not installed, or it rejects its arguments.
    """
    ids = _read_ids(folder)
    nodes = {str(name): node for name, node in (config.logger or {}).items() if node}
    if as_utf8(folder.resolve()) != str(folder.resolve()):
        of_tensorboard = [n for n, node in nodes.items() if "TensorBoard" in str(node["_target_"])]
        for name in of_tensorboard:
            console.print(
                f"logger.{name} is left out: TensorBoard cannot write to {as_utf8(folder.resolve())}, whose "
                "name is not UTF-8"
            )
            del nodes[name]
    return {name: _build(name, node, folder, ids.get(name), start) for name, node in nodes.items()}


def _build(
    name: str, node: Mapping[str, Any], folder: Path, known_id: str | None, start: Start | None
) -> Logger:
    """Build a logger that writes into `folder/<name>`. Keys that its configuration sets are kept.

    For a new run, `known_id`, its id in this logger, and `start` are None.
    """
    own = folder / name
    require_inside(folder, own)
    title = f"{folder.parent.name}/{folder.name}"
    target = str(node["_target_"]).rpartition(".")[2]
    first_step = start.next_step if start else 0
    rows: list[dict[str, Any]] = []
    given: dict[str, Any]
    if target == WandbLogger.__name__:
        # Silent, and without a copy of the console's output.
        settings = {"silent": True, "console": "off"}
        if node.get("offline"):  # Lightning would set WANDB_MODE for all later runs of the process
            settings |= {"mode": "offline"}
            node = {key: value for key, value in node.items() if key != "offline"}
        run_id = known_id or secrets.token_hex(4)
        given = {"save_dir": str(folder), "name": title, "id": run_id, "settings": settings}
    elif target == MLFlowLogger.__name__:
        # Creating a database takes ten seconds. MLflow allows a folder instead, but only on
        # request.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        for quiet in ("mlflow", "lightning.pytorch.loggers.mlflow"):  # they announce a new run
            logging.getLogger(quiet).setLevel(logging.ERROR)
        given = {"run_name": title, "run_id": known_id, "tracking_uri": own.resolve().as_uri()}
    else:
        offered = {"save_dir": str(folder), "name": "", "version": name}
        takes = parameters_of(require_target("logger", str(node["_target_"])))
        given = {key: value for key, value in offered.items() if key in takes}
        if target == TensorBoardLogger.__name__:
            # Also for a new run: TensorBoard takes the first mark for the beginning of the run.
            given["purge_step"] = first_step
            if start and IS_FIRST_PROCESS:
                _date_back(own)
        elif target == CSVLogger.__name__:
            rows = _former_rows(own, first_step)
    given = {key: value for key, value in given.items() if node.get(key) is None}
    stated = {key: value for key, value in node.items() if key not in given}
    logger = guard(build("logger", stated, **given))
    if rows and isinstance(logger, CSVLogger):
        with forgiving(logger):
            logger.experiment.metrics.extend(rows)
            logger.save()
    return logger


def remember_ids(loggers: Mapping[str, Logger], folder: Path) -> None:
    """Write the ids that a resumed run needs to continue the same runs in its loggers."""
    kinds = (WandbLogger, MLFlowLogger)
    ids = {name: logger.version for name, logger in loggers.items() if isinstance(logger, kinds)}
    if ids:
        write_json(folder / IDS, _read_ids(folder) | ids)


def _read_ids(folder: Path) -> dict[str, str]:
    return {k: v for k, v in json_or_empty(folder, IDS).items() if isinstance(v, str)}


def _date_back(folder: Path) -> None:
    """Rename TensorBoard's files that are not older than a file of this second would be.

    The clock may have been set back, or the run may be younger than a second. TensorBoard reads
    files in the order of their names, and would take the files from before the resume for the
    newest ones.
    """
    now, start = int(time.time()), "events.out.tfevents."
    names = sorted(path.name for path in folder.glob(f"{start}*"))
    dated = [name.removeprefix(start).partition(".") for name in names]
    dates = [(int(date), rest) for date, _, rest in dated if re.fullmatch("[0-9]{10}", date)]
    latest = now
    for date, rest in reversed(dates if any(date >= now for date, _ in dates) else []):
        latest = min(latest - 1, date)
        with suppress(OSError):
            (folder / f"{start}{date}.{rest}").rename(folder / f"{start}{latest}.{rest}")


def _former_rows(folder: Path, end: int) -> list[dict[str, Any]]:
    """The earlier rows of a resumed run, up to a step. Lightning would delete them and warn."""
    if not (IS_FIRST_PROCESS and os.path.lexists(folder / METRICS)):
        return []
    try:
        _, rows = read_rows(folder, METRICS)
        rows = [row for row in rows if int(row.get("step") or 0) < end]
    except (UnreadableError, ValueError) as error:
        console.print(f"{error}; this logger starts a new file")
        rows = []
    shutil.rmtree(folder)
    return [{k: v for k, v in row.items() if k and v} for row in rows]
