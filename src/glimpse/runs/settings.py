"""The recorded settings of a run: its configuration, its overrides, and those typed at a resume."""

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from glimpse.command import to_type
from glimpse.records import (
    ENVIRONMENT,
    MOST_YAML,
    UnreadableError,
    json_or_empty,
    listed,
    mapping,
    parse_yaml,
    read_text,
    read_yaml,
)

# Settings that state where a run is stored and how it was started, not what it computes.
PLACES = (
    "name", "data_dir", "output_dir", "resume", "check",
    "sweep.plan", "sweep.retry_failed", "sweep.fail_fast",
)  # fmt: skip

# Settings that repeat a training, so that its result has a mean and a deviation, with their names.
REPEATS = {"seed": "seed", "data.fold": "fold"}

MAX_EPOCHS = "trainer.max_epochs"
THEN = ", then "  # between the values of a setting that a resume has changed
MOST_SETTINGS = 5_000  # a record with more is not read


def repeats_of(keys: Collection[str]) -> str:
    """The name of what varies between runs with these keys: "seed", "fold", or "run" for both."""
    found = [what for key, what in REPEATS.items() if key in keys]
    return found[0] if len(found) == 1 else "run"


def recorded_choices(folder: Path) -> dict[str, str]:
    """The chosen file of each group; empty if it was not recorded."""
    try:
        found = read_yaml(folder, ".hydra/hydra.yaml")
    except UnreadableError:
        return {}
    for key in ("hydra", "runtime", "choices"):
        found = mapping(found).get(key)
    return {str(group): str(choice) for group, choice in mapping(found).items()}


def settings_of(folder: Path, environment: dict[str, Any] | None = None) -> dict[str, str]:
    """The recorded configuration, updated with the overrides typed when the run was resumed.

    Args:
        folder: The run folder.
        environment: The content of its environment.json, if it has been read already.

    Returns:
        The settings as `flat_settings` gives them; empty if they cannot be read.
    """
    return _updated(folder, _first_settings(folder), environment or environment_of(folder))


def settings_over_time(folder: Path, environment: dict[str, Any]) -> dict[str, str]:
    """The settings, as "0.001, then 0.1" where a resume has changed how the run trains.

    `trainer.max_epochs` is the last one; the summary has the earlier ones.
    """
    first = _first_settings(folder)
    last = _updated(folder, first, environment)
    new = last.keys() - first.keys()
    before = (recorded_choices(folder) if new else {}) | first
    may_change = {key for key in last if "." in key and key != MAX_EPOCHS} | new | {"seed"}
    changed = {key for key in may_change & before.keys() if last[key] != before[key]}
    return last | {key: f"{before[key]}{THEN}{last[key]}" for key in changed}


def edited_settings(
    folder: Path, overrides: Sequence[str], config: str
) -> dict[str, tuple[str, str]]:
    """The recorded and the new value of each setting that a resume would change unasked.

    They differ if a file of the record was edited after the run began, or a file of the
    configuration.

    Args:
        folder: The run folder.
        overrides: Those of the resume, as `train.py` orders them (`typed_at_resume`).
        config: The configuration that they compose, as YAML.
    """
    environment = {"command": ["train.py", *overrides]}
    recorded = settings_of(folder, environment)
    typed = {line.lstrip("+").partition("=")[0] for line in typed_at_resume(environment)}
    now = flat_settings(config)
    return {
        key: (recorded[key], now[key])
        for key in recorded.keys() & now.keys()
        if recorded[key] != now[key]
        and key not in PLACES
        and not any(key == one or key.startswith(f"{one}.") for one in typed)
    }


def _first_settings(folder: Path) -> dict[str, str]:
    """The settings with which a run was started."""
    try:
        settings = flat_settings(read_text(folder, ".hydra/config.yaml", most=MOST_YAML))
    except (UnreadableError, ValueError):
        return {}
    return settings if len(settings) <= MOST_SETTINGS else {}


def _updated(
    folder: Path, settings: Mapping[str, str], environment: Mapping[str, Any]
) -> dict[str, str]:
    """The settings after the overrides that were typed at a resume.

    The choice of a group is a setting of its own if it is not the recorded one, because the keys
    of its file are not recorded.
    """
    typed = [line.lstrip("+").partition("=") for line in typed_at_resume(environment)]
    if not settings or not typed:
        return dict(settings)
    has_new = any(key not in settings for key, _, _ in typed)
    choices = recorded_choices(folder) if has_new else {}  # a large file
    chosen = {key: value for key, _, value in typed if choices.get(key) != value}
    return {**settings, **{key: _plain(value) for key, value in chosen.items()}}


def _plain(value: str) -> str:
    """A value as typed, in the form of `flat_settings`."""
    try:
        return as_text(parse_yaml(value))
    except ValueError:
        return value


def flat_settings(text: str) -> dict[str, str]:
    """Flatten a configuration in YAML to dotted keys with values as text.

    Raises:
        ValueError: the text is not a mapping in YAML.
    """
    settings: dict[str, str] = {}
    for block in _blocks(text):
        settings |= _flat_block(block)
    return settings


def _blocks(text: str) -> list[str]:
    """Split YAML into a block per top-level key. Many runs share blocks, which are parsed once."""
    blocks: list[str] = []
    for line in text.splitlines(keepends=True):
        if line[0] in " -#\n" and blocks:
            blocks[-1] += line
        else:
            blocks.append(line)
    return blocks


@cache
def _flat_block(block: str) -> dict[str, str]:
    return flattened(parse_yaml(block) or {})


def flattened(node: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten `{"optimizer": {"lr": 1}}` to `{"optimizer.lr": "1"}`. Skip empty mappings."""
    if not isinstance(node, Mapping):
        raise ValueError("expected a mapping")
    flat: dict[str, str] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = as_text(value)
    return flat


def as_text(value: Any) -> str:
    """A plain value as text, in the notation of JSON; strings as they are."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    except TypeError:  # YAML may have keys that JSON lacks
        return str(value)


def environment_of(folder: Path) -> dict[str, Any]:
    """The content of environment.json; empty if it cannot be read."""
    return json_or_empty(folder, ENVIRONMENT)


def overrides_of(folder: Path) -> list[str]:
    """The overrides of a run: those of its own job in a sweep, and those typed at a resume."""
    try:
        recorded = listed(read_yaml(folder, ".hydra/overrides.yaml"))
    except UnreadableError:
        recorded = []
    words = [word for word in recorded if isinstance(word, str)]
    typed = [*words, *typed_at_resume(environment_of(folder))]
    return list({override.partition("=")[0]: override for override in typed}.values())


def typed_at_resume(environment: Mapping[str, Any]) -> list[str]:
    """The overrides typed when the run was resumed, in its last attempt or in earlier ones.

    `train.py` orders a resumed run's command as: recorded overrides, resume=, Hydra's own settings,
    overrides of earlier resumes, new overrides.
    """
    line = _command_line(environment)
    at = [i for i, word in enumerate(line) if word.startswith("resume=")]
    later = line[at[-1] + 1 :] if at else []
    of_hydra = ("hydra.", "hydra/", "-")
    return [word for word in later if "=" in word and not word.startswith(of_hydra)]


def was_resumed(environment: Mapping[str, Any]) -> bool:
    return any(word.startswith("resume=") for word in _command_line(environment))


def to_train(environment: Mapping[str, Any], *arguments: str) -> str:
    """A command that trains with these arguments, in the way in which a run was started."""
    return to_type(*arguments, line=_command_line(environment))


def to_resume(folder: Path) -> str:
    """The command that resumes a run."""
    return to_train(environment_of(folder), f"resume={folder}")


def _command_line(environment: Mapping[str, Any]) -> list[str]:
    return [word for word in listed(environment.get("command")) if isinstance(word, str)]
