"""Turn every error into one line: what was found, what was expected, and what to type.

The traceback of an unexpected error is saved to a file, which the line names. Nothing heavy is
imported.
"""

import difflib
import errno
import re
import sys
import sysconfig
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf.errors import OmegaConfBaseException

from glimpse.config.compose import hydra_for
from glimpse.config.folder import ROOT, choices_of, config_folders
from glimpse.config.keys import leaves, unknown_choice, unknown_key
from glimpse.config.quoting import quoted
from glimpse.config.schema import LISTS
from glimpse.errors import UserError, first_line
from glimpse.files import write_text
from glimpse.streams import printable

TRACEBACK = "traceback.txt"  # file name in a run folder
# What OmegaConf calls a type, in our words.
KINDS = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}


class CrashError(Exception):
    """An unexpected error, as one line that names the file with its traceback."""


def crash(
    error: Exception | SystemExit, folder: Path | None, *, name: str = TRACEBACK
) -> CrashError:
    """Save the full traceback of an error and describe the error and its location in one line.

    Args:
        error: The error that was raised.
        folder: The run folder. If it is None or cannot be written, the traceback goes to the
            system's temporary folder.
        name: The name of the traceback file.
    """
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return CrashError(f"{str(error.filename)[:60]}… is too long for a path: type a shorter one")
    text = "".join(traceback.format_exception(error))
    try:
        if folder is None or not folder.is_dir():
            raise UserError("there is no run folder")
        path = folder / name
        write_text(path, text)
    except UserError:
        try:
            path = Path(tempfile.mkdtemp(prefix="glimpse-")) / name
            write_text(path, text)
        except (OSError, UserError):  # the disk is full
            remedy = "HYDRA_FULL_ERROR=1 before the command shows the full traceback"
            return CrashError(f"{_with_remedy(error)}, at {_place(error)}; {remedy}")
    return CrashError(f"{_with_remedy(error)}, at {_place(error)}; the full traceback is in {path}")


def shortage(error: BaseException) -> str | None:
    """What the system lacks, and what to type, if that raised the error: memory, files or processes.

    Each library says that in its own way. A full disk is none of these: what writes names it.
    """
    number, text = getattr(error, "errno", None), str(error)
    if number in (errno.EMFILE, errno.ENFILE):
        return (
            "too many open files: type ulimit -n 4096 first, or a lower data.num_workers or "
            "hydra.launcher.n_jobs"
        )
    if number == errno.EAGAIN or "can't start new thread" in text:
        return (
            "the system starts no more processes or threads: raise the limit that ulimit -u shows, or "
            "type data.num_workers=0"
        )
    if "No usable temporary directory" in text:
        return "no temporary folder can be written: type export TMPDIR=<a writable folder> first"
    if "failed to map segment" in text:
        return "too little memory to load torch: raise the limit that ulimit -v shows"
    is_memory = isinstance(error, MemoryError) or number == errno.ENOMEM
    is_memory |= type(error).__name__ == "OutOfMemoryError" or "allocate memory" in text
    if is_memory:
        return (
            "out of memory: type a lower data.batch_size or data.presize, or choose a smaller model"
        )
    return None


def _with_remedy(error: BaseException) -> str:
    found = shortage(error)
    return _named(error) if found is None else f"{found} ({_named(error)})"


def _place(error: BaseException) -> str:
    """File and line of the innermost frame outside libraries, or of the innermost frame."""
    frames = traceback.extract_tb(error.__traceback__)
    libraries = ("site-packages", sysconfig.get_path("stdlib"), "<frozen")
    own = [f for f in frames if not any(part in f.filename for part in libraries)]
    frame = (own or list(frames))[-1]
    return f"{frame.filename}:{frame.lineno}"


def is_foreseen(error: BaseException) -> bool:
    """Whether an error is a mistake of the user, so that one line explains it."""
    known = (UserError, CrashError, HydraException, OmegaConfBaseException, yaml.MarkedYAMLError)
    composing = ("Config group override must be", "Ambiguous value")
    return isinstance(error, known) or any(text in str(error) for text in composing)


def explain(error: BaseException, typed: Sequence[str] | None = None) -> str:
    """Describe an error in one line: what was found, what was expected, and what to type.

    Args:
        error: The error that was raised.
        typed: The overrides that led to it; None means the process's arguments.
    """
    return printable(_explained(error, typed))


def _explained(error: BaseException, typed: Sequence[str] | None) -> str:
    if isinstance(error, UserError | CrashError):
        return str(error)
    if isinstance(error, MissingConfigException):
        return _explain_missing_choice(error, typed)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return (
            f"{mark.name}, line {mark.line + 1}: {error.problem}: expected YAML; indent with two spaces, "
            "close each bracket and quote, and write a space after each colon"
        )
    merging = re.match("Error merging override (.+)", str(error))
    if merging and error.__cause__ is not None:
        cause = _one_line(str(error.__cause__))
        kind = re.search(r"could not be converted to (\w+)", cause)
        return (
            f"{merging[1]}: expected {KINDS.get(kind[1], kind[1])}"
            if kind
            else f"{merging[1]}: {cause}"
        )
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException):
        key = re.search(r"Could not override '([^']+)'", str(error))
        if key:
            return _explain_key(key[1], typed)
        deleted = re.search(
            r"Could not delete (?:from config\. )?(?:The value of )?'([^'=]+)", str(error)
        )
        if deleted:
            return _explain_deletion(deleted[1], typed)
    if isinstance(error, OverrideParseException):
        name, equals, value = str(error.override).partition("=")
        if split := _split_by_blanks(str(error.override), typed):
            return f'{split}: blanks separate settings; type it in quotes: "{split}"'
        if equals and name != name.strip():
            return f"{error.override}: a blank before =; type {name.strip()}={value.strip()}"
        if not equals:
            return _explain_word(str(error.override), typed)
        return f'{error.override}: {first_line(error)}; for text, type "{name}={_quoted(value)}"'
    if "Config group override must be" in str(error):  # Hydra raises a plain ValueError here
        return _explain_no_choice(error, typed)
    if ambiguous := re.search(r"Ambiguous value for argument '(.+)'\n", str(error)):
        return _explain_several(ambiguous[1], typed)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_composing(error)
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{where}"
    return _named(error)


def _explain_composing(error: HydraException | OmegaConfBaseException) -> str:
    """The file or the key that Hydra or OmegaConf could not compose."""
    text = str(error)
    in_file = re.match(r"In '([^']+)': \w+ raised while composing config:\n\s*(.+)", text)
    if in_file:
        source, reason = in_file.groups()
        is_list = "ListConfig" in reason
        found = "expected lines of key: value, found a list" if is_list else reason
        return f"{source}.yaml: {found}"
    if not text and error.__cause__ is not None:  # of the grammar of ${…}
        return (
            f"a value with ${{ in a configuration file: {_one_line(str(error.__cause__))}: expected a key "
            "in braces, such as ${optimizer.lr}"
        )
    key = re.search(r"full_key: (\S+)", text)
    where = f"{key[1]}: " if key else ""
    hint = ": expected a key of this configuration" if "nterpolation" in text else ""
    return f"{where}{_one_line(text)}{hint}"


def _explain_word(word: str, typed: Sequence[str] | None) -> str:
    """What was meant by a word without `=`: a part of an override that blanks have split, or a choice."""
    words = list(_words(typed))
    place = words.index(word) if word in words else len(words)
    before, after = " ".join(words[:place]), " ".join(words[place + 1 :])
    if after.startswith("="):
        value = after.lstrip("= ").partition(" ")[0]
        return (
            f"{word} ={' ' * after.startswith('= ')}{value}: blanks around =; type {word}={value}"
        )
    if before.endswith("="):
        key = words[place - 1]
        return f"{key} {word}: a blank after =; type {key}{word}"
    name, colon, value = word.partition(":")
    if colon and value:
        return f"{word}: expected key=value; type {name}={value}"
    groups = sorted({path.name for folder in _folders(typed) for path in folder.iterdir()})
    group = next((g for g in groups if word in choices_of(g, _folders(typed))), None)
    if group:
        shown = f"[{word}]" if group in LISTS else word
        return f"{word}: expected key=value; did you mean {group}={shown}?"
    if word in groups:
        choice = choices_of(word, _folders(typed))[0]
        return f"{word}: expected key=value, such as {word}={choice}"
    return f"{word}: expected key=value, such as model=mlp or trainer.max_epochs=3"


def _split_by_blanks(word: str, typed: Sequence[str] | None) -> str | None:
    """An override in brackets, of which the shell has made several words; None for any other."""
    words = list(_words(typed))
    if "=" not in word or not _is_open(word) or word not in words:
        return None
    place = words.index(word)
    wholes = (" ".join(words[place : end + 1]) for end in range(place + 1, len(words)))
    return next((whole for whole in wholes if not _is_open(whole)), None)


def _is_open(text: str) -> bool:
    """Whether a text opens a bracket that it does not close."""
    return any(text.count(opening) > text.count(closing) for opening, closing in ("[]", "()", "{}"))


def _explain_several(override: str, typed: Sequence[str] | None) -> str:
    """What to type in place of `key=1,2`, which Hydra takes for the values of a sweep."""
    key, _, values = override.partition("=")
    found = f"{override}: several values for one run"
    is_list = key in (*LISTS, "augment") or isinstance(_known(typed).get(key), list | None)
    if choices_of(key, _folders(typed)) and key not in (*LISTS, "augment"):
        is_list = False
    list_ = f"{key}=[{values}] for a list, or " if is_list else ""
    return f"{found}: type {list_}-m to sweep over the values"


def _explain_key(key: str, typed: Sequence[str] | None) -> str:
    """Why Hydra finds no key of this name: it is unknown, or a part of it was removed."""
    known = _known_keys(typed)
    if key not in known:
        return unknown_key(key, known)
    group = key.partition(".")[0]
    return f"{group} was removed from the configuration: do not type ~{group}"


def _explain_deletion(key: str, typed: Sequence[str] | None) -> str:
    """What to type in place of ~key, which removes nothing."""
    known = _known_keys(typed)
    group, _, rest = key.partition(".")
    if not (key in known or any(name.startswith(f"{key}.") for name in known)):
        return unknown_key(key, known)
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


def _named(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"sys.exit({error.code!r}) was called, which ends the process before the run is over"
    if "Expected more than 1 value per channel" in str(error):
        error.add_note(
            "batch norm needs two values or more of each channel: type data.batch_size=2 or more"
        )
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {_one_line(str(error))}{notes}"


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "no message"


def _explain_missing_choice(error: MissingConfigException, typed: Sequence[str] | None) -> str:
    root = re.search(r"Cannot find primary config '(.+?)'", str(error))
    if root:
        return _explain_root(root[1], typed)
    missing = re.search(r"(?:In '([^']+)': )?Could not (?:find|load) '([^']+)'", str(error))
    if not missing or "/" not in missing[2]:
        return _one_line(str(error))
    source, path = missing.groups()
    group, _, choice = path.rpartition("/") if path.startswith("hydra/") else path.partition("/")
    available = choices_of(group, _folders(typed)) or list(error.options or ())
    if not available:
        return unknown_key(group, _known_keys(typed))
    if any(word.startswith("resume=") for word in _words(typed)):
        return (
            f"{group}={choice}, with which the run was started, is in none of the configuration folders "
            f"here: type --config-dir <the folder of {group}/{choice}.yaml>"
        )
    if source and "/" in source and source != "hydra/config":  # the defaults of a file
        return f"{source}.yaml, in defaults: {unknown_choice(group, choice, available)}"
    other = next(
        (file for f in _folders(typed) if (file := f / group / f"{choice}.yml").exists()), None
    )
    if other:
        return f"{group}={choice}: {other} ends in .yml, expected .yaml: rename it"
    if remedy := _for_a_path(group, choice):
        return f"{group}={choice}: expected a name, found a path: type {remedy}"
    return unknown_choice(group, choice, available)


def _for_a_path(group: str, choice: str) -> str | None:
    """What to type for a path where the name of a choice belongs; None if it looks like a name."""
    ending = Path(choice).suffix.lower()
    if ending == ".yaml":
        return f"{group}={Path(choice).stem}"
    is_path = "/" in choice or "\\" in choice or bool(ending) or Path(choice).exists()
    if group == "data" and is_path:
        if ending == ".parquet":
            return f"data=huggingface data.name={choice}"
        if ending in (".csv", ".tsv", ".txt"):
            return f"data=csv data.train={choice}"
        return f"data=image_folder data.root={choice}"
    if group == "model" and ending in (".ckpt", ".pt", ".pth", ".safetensors"):
        return f"model=<its name> model.weights={choice}"
    return None


def _explain_root(name: str, typed: Sequence[str] | None) -> str:
    """What to type in place of a root configuration that does not exist."""
    folders = _folders(typed)
    names = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else "type --config-dir <its folder> too"
    places = " or ".join(map(str, folders))
    return f"--config-name {name}: there is no {name}.yaml in {places}; {hint}"


def _explain_no_choice(error: BaseException, typed: Sequence[str] | None) -> str:
    for argument in _words(typed):
        group, _, chosen = argument.lstrip("+").partition("=")
        available = choices_of(group, _folders(typed))
        if available and chosen[:1] != "[":
            if chosen in available:  # its name is a number for YAML, such as nan
                return f"{argument}: YAML reads {chosen} as a number; rename {group}/{chosen}.yaml"
            return unknown_choice(group, chosen, available)
    return _one_line(str(error))


def _words(typed: Sequence[str] | None) -> Sequence[str]:
    return sys.argv[1:] if typed is None else typed


def _folders(typed: Sequence[str] | None) -> list[Path]:
    return config_folders(_words(typed))


def _known_keys(typed: Sequence[str] | None) -> list[str]:
    """The groups, and the keys of the configuration files that the overrides choose."""
    folders = _folders(typed)
    groups = {path.name for folder in folders for path in folder.iterdir() if path.is_dir()}
    return [*groups, *_known(typed)]


def _known(typed: Sequence[str] | None) -> dict[str, Any]:
    """The keys of the configuration files that the overrides choose, with their defaults."""
    folders = _folders(typed)
    choices = []
    for argument in _words(typed):
        group, _, chosen = argument.partition("=")
        available = choices_of(group, folders)
        names = [name for name in chosen.strip("[]").split(",") if name in available]
        if names:  # in a sweep, take the first choice
            listed = chosen.startswith("[")
            choices.append(f"{group}=[{','.join(names)}]" if listed else f"{group}={names[0]}")
    with hydra_for(folders[-1]):
        try:
            composed = compose(ROOT, overrides=choices, return_hydra_config=True)
        except HydraException:  # the choices cannot be combined
            composed = compose(ROOT, return_hydra_config=True)
    return dict(leaves(composed))
