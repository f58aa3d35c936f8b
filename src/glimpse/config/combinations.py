"""Reject settings that do not fit each other. check.py looks at each setting by itself.

Nothing heavy is imported.
"""

import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from glimpse.config.folder import choices_of, config_folders
from glimpse.config.schema import APART, WATCHERS
from glimpse.errors import UserError
from glimpse.monitor import DEFAULT, MAY_BE_LOGGED, what_is_wrong
from glimpse.runs.settings import flat_settings, recorded_choices, settings_of


def check_combinations(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Reject settings of a resolved configuration that do not fit each other.

    Each value has been checked by itself, and `choices` are the chosen file of each group.

    Raises:
        UserError: two settings do not fit each other. The message names one of them and what to
            type instead.
    """
    if config.task != "fit" and config.resume:
        raise UserError(f"task={config.task} cannot be resumed: remove resume")
    _check_resumed(config, choices)
    if config.lr_find.start >= config.lr_find.end:
        raise UserError(
            f"lr_find.start={config.lr_find.start:g}: expected less than "
            f"lr_find.end={config.lr_find.end:g}"
        )
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    check_monitors(plain, _logged(config))
    _check_folds(config)
    _check_callbacks(config, choices)
    _check_optimizer(config)
    _check_compile(config)
    if config.trainer.devices in (0, "0", "", []):
        raise UserError(
            f"trainer.devices={config.trainer.devices}: expected a number of devices above 0; type "
            "trainer=cpu for the CPU"
        )
    if config.tta and not config.test:
        raise UserError(
            f"tta={config.tta} needs the final evaluation, which test=false skips: type test=true or "
            "tta=null"
        )


def _check_resumed(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Require the dataset and the model of a resumed run to be its own, before the data are read."""
    if not config.resume:
        return
    folder = Path(config.resume)
    chosen, recorded = recorded_choices(folder), settings_of(folder)
    _require_same_choice(config, "data", chosen, choices)
    typed = flat_settings(OmegaConf.to_yaml(OmegaConf.create({"model": config.model})))
    weights = "model.weights"
    was, now = recorded.get(weights), typed.get(weights)
    if None not in (was, now) and was != now and "${" not in str(was):  # recorded as typed
        raise UserError(
            f"{weights}={now}: a resumed run continues with the weights of its checkpoint: leave "
            f"out {weights}, or leave out resume= for a new run"
        )
    before, after = (
        {k: v for k, v in one.items() if k.startswith("model.") and k != weights}
        for one in (recorded, typed)
    )
    if before and before != after:
        _require_same_choice(config, "model", chosen, choices)


def _require_same_choice(
    config: DictConfig, group: str, recorded: Mapping[str, str], choices: Mapping[str, Any]
) -> None:
    was, now = recorded.get(group), choices.get(group)
    if was not in (None, now):
        raise UserError(
            f"resume={config.resume}: the run was trained with {group}={was}, not {now}: leave out "
            f"{group}={now}, or leave out resume= for a new run"
        )


def _check_callbacks(config: DictConfig, choices: Mapping[str, Any]) -> None:
    """Require callbacks to fit each other, the schedule, the network and the optimizer."""
    chosen = {name for name, node in (config.callbacks or {}).items() if node}
    for one, other, why in APART:
        if {one, other} <= chosen:
            raise UserError(f"callbacks={one} and {other} cannot be combined: {why}; remove one")
    if "progressive_sizes" in chosen and choices.get("scheduler") == "plateau":
        raise UserError(
            "scheduler=plateau monitors val/loss, which progressive_sizes raises until its last "
            "stage: type scheduler=onecycle"
        )
    pretrained = config.model._target_ == "glimpse.models.pretrained.Pretrained"
    published = pretrained and config.model.weights not in (None, "none")
    for name in ("finetune", "frozen_features"):
        if name in chosen and not published:
            without = "model.weights=none" if pretrained else "this model"
            raise UserError(
                f"callbacks=[{name}] freezes layers, which needs pretrained weights; {without} has "
                "none: type model=pretrained model.weights=default"
            )
    _check_frozen_features(config, chosen)
    if published and config.optimizer.get("matrix_lr") is not None:
        raise UserError(
            "optimizer.matrix_lr makes Muon normalise every weight matrix, which destroys pretrained "
            "weights: type optimizer.matrix_lr=null"
        )


def _check_frozen_features(config: DictConfig, chosen: Collection[str]) -> None:
    """Require images that stay as they are, if their features are computed once."""
    if "frozen_features" not in chosen:
        return
    if config.augment:
        raise UserError(
            "callbacks=[frozen_features] computes features once, so images cannot be augmented: "
            "type augment=none, or callbacks=[finetune]"
        )
    if config.tta:
        raise UserError(
            f"tta={config.tta} changes images, and callbacks=[frozen_features] keeps only their "
            "features: type tta=null"
        )


def _check_optimizer(config: DictConfig) -> None:
    """Require the optimizer's settings to fit each other and the run."""
    optimizer = config.optimizer
    if optimizer.get("nesterov") and not optimizer.get("momentum"):
        raise UserError("optimizer.nesterov=true needs momentum: type optimizer.momentum=0.9")
    if optimizer._target_ == "torch.optim.LBFGS" and config.on_nonfinite == "skip":
        raise UserError(
            "on_nonfinite=skip cannot undo a step of LBFGS, which evaluates the loss several times: type "
            "on_nonfinite=stop"
        )


def _check_compile(config: DictConfig) -> None:
    """Reject CUDA graphs that would overwrite the gradients which are accumulated."""
    accumulates = config.trainer.accumulate_grad_batches > 1 or any(
        node and node._target_.endswith(".GradientAccumulationScheduler")
        for node in (config.callbacks or {}).values()
    )
    if accumulates and config.compile in ("reduce-overhead", "max-autotune"):
        raise UserError(
            f"compile={config.compile} makes CUDA graphs, which overwrite accumulated gradients: type "
            "compile=default, or trainer.accumulate_grad_batches=1"
        )


def require_one_batch_size(config: DictConfig, typed: Iterable[str]) -> None:
    """Reject a typed `data.batch_size` together with `data.global_batch_size`, which replaces it.

    Raises:
        UserError: both are given.
    """
    both = any(override.lstrip("+").startswith("data.batch_size=") for override in typed)
    if both and config.data.get("global_batch_size") is not None:
        raise UserError(
            f"data.batch_size={config.data.batch_size} and data.global_batch_size="
            f"{config.data.global_batch_size}: type only one of them; the first is the batch size of "
            "each process, the second the batch size over all processes"
        )


def check_monitors(config: Mapping[Any, Any], logged: Sequence[str]) -> None:
    """Require each metric that a checkpoint, callback or schedule watches to be logged.

    Raises:
        UserError: a metric is not logged. The message names the most similar one that is.
    """
    watched = {"monitor": config["monitor"] or DEFAULT, **_watched(config)}
    if config["monitor"] is None and config["mode"] is not None:
        usual = "val/loss" if config["mode"] == "min" else DEFAULT
        raise UserError(
            f"mode={config['mode']} needs a monitor: type monitor={usual}, or leave out mode"
        )
    typed = " ".join(word for word in sys.argv if word.startswith("metrics="))
    chosen = re.findall(r"\w+", typed)  # a file may name its metrics otherwise
    available = [c for c in choices_of("metrics", config_folders(sys.argv[1:])) if c not in chosen]
    for key, name in watched.items():
        wrong = what_is_wrong(key, str(name), logged, available)
        if wrong:
            raise UserError(wrong)


def _watched(config: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    """The metrics that parts of a run watch, by their keys."""
    found: dict[str, str] = {}
    if config.get("_target_") in WATCHERS and config.get("monitor"):
        found[f"{prefix}monitor"] = config["monitor"]
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= _watched(value, f"{prefix}{key}.")
    return found


def _logged(config: DictConfig) -> list[str]:
    """The metrics that a run logs, as far as its configuration determines them."""
    metrics = (config.get("metrics") or {}).items()
    return [*MAY_BE_LOGGED, *(f"val/{name}" for name, node in metrics if node)]


def _check_folds(config: DictConfig) -> None:
    """Require `data.folds` and `data.fold` to fit each other."""
    folds, fold = config.data.get("folds"), config.data.get("fold")
    if folds is None and fold is not None:
        raise UserError(
            f"data.fold={fold} needs the number of folds: type data.folds=5 data.fold={fold}"
        )
    if folds is not None and fold is None:
        every = ",".join(map(str, range(min(folds, 10)))) + (",…" if folds > 10 else "")
        raise UserError(
            f"data.folds={folds} needs the fold to validate on: type data.fold=0 for one, or "
            f"-m data.fold={every} for all of them"
        )
    if folds is not None and fold >= folds:
        raise UserError(f"data.fold={fold}: expected 0 to {folds - 1}, as data.folds={folds}")
