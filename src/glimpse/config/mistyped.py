"""Explain an override or a configuration file that Hydra cannot compose.

Hydra and OmegaConf report a wrong key, choice or value in many forms. This file turns each into one
line that names the nearest valid one. Nothing heavy is imported.
"""

import difflib
import os
import re
from collections.abc import Sequence
from typing import Any

from hydra import compose
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import OmegaConfBaseException

from glimpse.command import in_shell
from glimpse.config.compose import hydra_for
from glimpse.config.folder import ROOT, choices_of, config_folders, groups_of, root_name
from glimpse.config.keys import (
    choices_of_plugins,
    in_own_folder,
    leaves,
    removed_key,
    unknown_choice,
    unknown_key,
)
from glimpse.config.places import for_a_path
from glimpse.config.quoting import quoted
from glimpse.config.schema import LISTED, LISTS, OTHER_KINDS
from glimpse.errors import first_line, one_line
from glimpse.text import is_number

# What OmegaConf calls a type, in our words.
KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}
# Functions whose values a sweep trains, and their arguments.
USAGES = {
    "choice": "choice(a,b,…)",
    "range": "range(start,stop,step)",
    "interval": "interval(start,end)",
}
# What other programs call a range in which equal ratios are equally likely.
LOGARITHMIC = ("log", "loguniform", "log_uniform", "logspace")
# Parts of messages that Hydra raises as plain errors.
NO_CHOICE, SEVERAL = "Config group override must be", "Ambiguous value"


def is_of_composing(error: BaseException) -> bool:
    """Whether Hydra or OmegaConf could not compose a configuration."""
    is_theirs = isinstance(error, HydraException | OmegaConfBaseException)
    return is_theirs or any(text in str(error) for text in (NO_CHOICE, SEVERAL))


def explain_composing(error: BaseException, words: Sequence[str]) -> str:
    """Describe an error in composing these words in one line."""
    if isinstance(error, MissingConfigException):
        return _explain_missing_choice(error, words)
    merging = re.match("Error merging override (.+)", str(error))
    if merging and error.__cause__ is not None:
        cause = one_line(str(error.__cause__))
        kind = re.search(r"could not be converted to (\w+)", cause)
        return (
            f"{merging[1]}: expected {KINDS.get(kind[1], kind[1])}"
            if kind
            else f"{merging[1]}: {cause}"
        )
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException):
        key = re.search(r"Could not override '([^']+)'", str(error))
        if key:
            return _explain_key(key[1], words)
        deleted = re.search(
            r"Could not delete (?:from config\. )?(?:The value of )?'([^'=]+)", str(error)
        )
        if deleted:
            return _explain_deletion(deleted[1], words)
        added = re.search(r"An item is already at '([^']+)'", str(error))
        if added:
            return f"+{added[1]}: the key exists already: type {added[1]}=<value>, without +"
        chosen = re.search(r"Multiple values for ([^.]+)\. .*'override .+: (.+)'", str(error))
        chosen = chosen or re.search(r"force-add of config groups .*'\+\+([^=]+)=(.+)'", str(error))
        if chosen:
            setting = f"{chosen[1]}={chosen[2]}"
            return f"+{setting}: the group exists already: type {setting}, without +"
    if isinstance(error, OverrideParseException):
        return _explain_override(error, words)
    if NO_CHOICE in str(error):  # Hydra raises a plain ValueError here
        return _explain_no_choice(error, words)
    if ambiguous := re.search(r"Ambiguous value for argument '(.+)'\n", str(error)):
        return _explain_several(ambiguous[1], words)
    return _explain_other(error)


def _explain_override(error: OverrideParseException, words: Sequence[str]) -> str:
    """Explain an override that Hydra cannot parse."""
    override = str(error.override)
    name, equals, value = override.partition("=")
    if split := _split_by_blanks(override, words):
        return f'{split}: spaces separate settings; type it in quotes: "{split}"'
    if several := _several_in_one(override):
        return several
    if value and (remedy := for_a_path(name, value)) is not None:
        return f"{override}: expected a name, found a path: type {remedy}"
    if equals and value.rstrip().endswith(","):
        return f"{override}: a comma at the end: type {name}={value.rstrip().rstrip(',')}"
    if equals and name.endswith("+"):
        whole = f"[{value}]" if name[:-1] in LISTED and value[:1] != "[" else value
        return f"{override}: there is no +=; type {name[:-1]}={whole}"
    if equals and name != name.strip():
        return f"{override}: a space before =; type {name.strip()}={value.strip()}"
    if not equals:
        return _explain_word(override, words)
    called = re.search(r" while evaluating '(\w+)\((.*)\)': (.+)", str(error))
    if called and called[1] in USAGES:
        return f"{override}: {_explain_call(name, *called.groups())}"
    found = called[3] if called else first_line(error)
    if found.startswith("Unknown function"):
        if called and called[1] in LOGARITHMIC:
            ends = called[2].replace(" ", "")
            return (
                f"{override}: Hydra has no such function; for a logarithmic range, type "
                f"'{name}=tag(log,interval({ends}))'"
            )
        found = f"Hydra has no such function; it has {', '.join(USAGES.values())}"
    if items := re.fullmatch(r"\(([\w.+-]+(?:,\s*[\w.+-]+)*),?\)", value):
        return f"{override}: a list is written in brackets: type '{name}=[{items[1]}]'"
    if _is_open(value):
        found = "a bracket is not closed"
    return f'{override}: {found}; for text, type "{name}={_quoted(value)}"'


def _explain_other(error: BaseException) -> str:
    """Name the file or the key that Hydra or OmegaConf could not compose."""
    text = str(error)
    in_file = re.match(r"In '([^']+)': \w+ raised while composing config:\n\s*(.+)", text)
    if in_file:
        source, reason = in_file.groups()
        is_list = "ListConfig" in reason
        found = "expected lines of key: value, found a list" if is_list else reason
        return f"{source}.yaml: {found}"
    if not text and error.__cause__ is not None:  # of the grammar of ${…}
        return (
            f"a value with ${{ in a configuration file: {one_line(str(error.__cause__))}: expected a key "
            "in braces, such as ${optimizer.lr}"
        )
    key = re.search(r"full_key: (\S+)", text)
    where = f"{key[1]}: " if key else ""
    hint = ": expected a key of this configuration" if "nterpolation" in text else ""
    return f"{where}{one_line(text)}{hint}"


def _explain_call(key: str, function: str, arguments: str, reason: str) -> str:
    """Explain a call of one of the `USAGES` with wrong arguments."""
    if function == "choice" and "NoneType" in reason:
        return f"choice() does not take null: type {key}={arguments}"
    return f"{one_line(reason)}: type {key}={USAGES[function]}"


def _explain_word(word: str, words: Sequence[str]) -> str:
    """Explain a word without `=`: a part of an override that spaces have split, or a choice."""
    place = words.index(word) if word in words else len(words)
    before, after = " ".join(words[:place]), " ".join(words[place + 1 :])
    if after.startswith("="):
        value = after.lstrip("= ").partition(" ")[0]
        return (
            f"{word} ={' ' * after.startswith('= ')}{value}: spaces around =; type {word}={value}"
        )
    if before.endswith("="):
        key = words[place - 1]
        return f"{key} {word}: a space after =; type {key}{word}"
    name, colon, value = word.partition(":")
    if colon and value:
        return f"{word}: expected key=value; type {name}={value}"
    groups = sorted(groups_of(config_folders(words)))
    group = next((g for g in groups if word in choices_of(g, config_folders(words))), None)
    if group:
        shown = f"[{word}]" if group in LISTS else word
        return f"{word}: expected key=value; did you mean {group}={shown}?"
    if word in groups:
        choice = choices_of(word, config_folders(words))[0]
        return f"{word}: expected key=value, such as {word}={choice}"
    return f"{word}: expected key=value, such as model=mlp or trainer.max_epochs=3"


def _several_in_one(word: str) -> str | None:
    """Explain a word that holds several overrides; None for any other."""
    parts = word.split()
    if len(parts) < 2 or not all(re.fullmatch(r"[\w./+~-]+=[^=]+", part) for part in parts):
        return None
    separate = ", ".join(f'"{part}"' for part in parts)
    return (
        f'"{word}": several overrides in one: type {in_shell(*parts)}, each by itself (in Python, '
        f"train({separate}))"
    )


def _split_by_blanks(word: str, words: Sequence[str]) -> str | None:
    """An override in brackets that the shell has split into words; None for any other."""
    if "=" not in word or not _is_open(word) or word not in words:
        return None
    place = words.index(word)
    wholes = (" ".join(words[place : end + 1]) for end in range(place + 1, len(words)))
    return next((whole for whole in wholes if not _is_open(whole)), None)


def _is_open(text: str) -> bool:
    """Whether a text opens a bracket that it does not close."""
    return any(text.count(opening) > text.count(closing) for opening, closing in ("[]", "()", "{}"))


def _explain_several(override: str, words: Sequence[str]) -> str:
    """Say what to type in place of `key=1,2`, which Hydra takes for the values of a sweep."""
    key, _, values = override.partition("=")
    found = f"{override}: several values for one run"
    if key in OTHER_KINDS:
        is_list = list in OTHER_KINDS[key]
    elif choices_of(key, config_folders(words)):
        is_list = key in LISTED
    else:
        is_list = isinstance(_known(words).get(key), list | None)
    list_ = f"{key}=[{values}] for a list, or " if is_list else ""
    return f"{found}: type {list_}-m to sweep over the values"


def _explain_key(key: str, words: Sequence[str]) -> str:
    """Explain why Hydra finds no key of this name: it is unknown, or a part of it was removed."""
    known = _known_keys(words)
    if key not in known:
        return unknown_key(key, known, words)
    group = key.partition(".")[0]
    if any(word.startswith(f"~{group}") for word in words):
        return removed_key(group)
    chosen = next((word for word in reversed(words) if word.startswith(f"{group}=")), group)
    return f"{key}: not every choice in {chosen} has this key: type only choices that have it"


def _explain_deletion(key: str, words: Sequence[str]) -> str:
    """Say what to type in place of ~key, which removes nothing."""
    known = _known_keys(words)
    group, _, rest = key.partition(".")
    if not (key in known or any(name.startswith(f"{key}.") for name in known)):
        return unknown_key(key, known, words)
    if group in LISTS:
        return (
            f"~{key}: type {key}=null to turn it off" if rest else f"~{key}: type {key}=[] for none"
        )
    return f"~{key} removes nothing here: type {key}=<value>"


def _quoted(value: str) -> str:
    """Quote a value that Hydra cannot parse: as text, or as a list of texts."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return quoted(value[1:-1])
    if value[:1] == "[" and value[-1:] == "]":
        items = [item.strip().strip("'\"") for item in value[1:-1].split(",")]
        return f"[{','.join(map(quoted, items))}]"
    return quoted(value)


def _explain_missing_choice(error: MissingConfigException, words: Sequence[str]) -> str:
    root = re.search(r"Cannot find primary config '(.+?)'", str(error))
    if root:
        return _explain_root(root[1], words)
    missing = re.search(r"(?:In '([^']+)': )?Could not (?:find|load) '([^']+)'", str(error))
    if not missing or "/" not in missing[2]:
        return one_line(str(error))
    source, path = missing.groups()
    group, _, choice = path.rpartition("/") if path.startswith("hydra/") else path.partition("/")
    available = choices_of(group, config_folders(words)) or list(error.options or ())
    if not available:
        return unknown_key(group, _known_keys(words), words)
    if hint := in_own_folder(group, choice):
        return hint
    end_of_record = "hydra.output_subdir=null"  # a resume puts the recorded overrides before it
    own = words[words.index(end_of_record) :] if end_of_record in words else words
    is_typed = any(word.lstrip("+") == f"{group}={choice}" for word in own)
    if not is_typed and any(word.startswith("resume=") for word in words):
        return (
            f"{group}={choice}, with which the run was started, is in none of the configuration folders "
            f"here: type --config-dir <the folder of {group}/{choice}.yaml>"
        )
    if source and "/" in source and source != "hydra/config":  # the defaults of a file
        return f"{source}.yaml, in defaults: {unknown_choice(group, choice, available)}"
    other = next(
        (
            file
            for f in config_folders(words)
            if os.path.exists(file := f / group / f"{choice}.yml")
        ),
        None,
    )
    if other:
        return f"{group}={choice}: {other} ends in .yml, expected .yaml: rename it"
    if remedy := for_a_path(group, choice, available):
        return f"{group}={choice}: expected a name, found a path: type {remedy}"
    return unknown_choice(group, choice, available)


def _explain_root(name: str, words: Sequence[str]) -> str:
    """Say what to type in place of a root configuration that does not exist."""
    folders = config_folders(words)
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "type --config-dir <its folder> too"
    places = " or ".join(map(str, folders))
    return f"--config-name {name}: there is no {name}.yaml in {places}; {hint}"


def _explain_no_choice(error: BaseException, words: Sequence[str]) -> str:
    for argument in words:
        group, _, chosen = argument.lstrip("+").partition("=")
        available = choices_of(group, config_folders(words))
        if available and chosen[:1] != "[":
            if chosen in available:
                if not is_number(chosen):
                    continue  # another choice is the wrong one
                return f"{argument}: YAML reads {chosen} as a number; rename {group}/{chosen}.yaml"
            return unknown_choice(group, chosen, available)
    return one_line(str(error))


def _known_keys(words: Sequence[str]) -> list[str]:
    """The groups, and the keys of the configuration files that the overrides choose."""
    return [*groups_of(config_folders(words)), *_known(words)]


def _known(words: Sequence[str]) -> dict[str, Any]:
    """The keys of the configuration files that the overrides choose, with their defaults."""
    folders = config_folders(words)
    choices = []
    for argument in words:
        group, _, chosen = argument.partition("=")
        available = choices_of(group, folders) or choices_of_plugins(group)
        names = [name for name in chosen.strip("[]").split(",") if name in available]
        if names:  # in a sweep, take the first choice
            listed = chosen.startswith("[")
            choices.append(f"{group}=[{','.join(names)}]" if listed else f"{group}={names[0]}")
    own = root_name(words)
    with hydra_for(folders[-1]):
        try:
            composed = compose(own, overrides=choices, return_hydra_config=True)
        except HydraException:  # the choices cannot be combined, or the mistake is in the root
            composed = compose(ROOT, return_hydra_config=True)
    return dict(leaves(composed))
