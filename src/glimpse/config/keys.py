"""The dotted keys of a configuration, and messages for keys and choices that do not exist."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from glimpse.config.schema import NOT_KNOWN_YET


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every (dotted key, plain value) of a configuration. Lists count as values.

    Missing values and interpolations are yielded as `NOT_KNOWN_YET`.
    """
    for key in node:
        name = f"{prefix}{key}"
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            yield name, NOT_KNOWN_YET
            continue
        value = node[key]
        if isinstance(value, DictConfig) and len(value):
            yield from leaves(value, f"{name}.")
        elif isinstance(value, DictConfig):
            continue
        elif isinstance(value, ListConfig):
            yield name, OmegaConf.to_container(value)
        else:
            yield name, value


def unknown_key(key: str, known: Iterable[str]) -> str:
    """An error message for an unknown key, with the most similar known key."""
    known = list(known)
    group, _, rest = key.partition(".")
    if group == "experiment" and rest in known:
        return (
            f"{key} is not a key of this configuration: write # @package _global_ as the first line of "
            "the experiment's file, so that it sets the keys of the run"
        )
    swapped = [name for name in known if sorted(name) == sorted(key)]  # modle is model, not mode
    near = swapped or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:  # perhaps only the group is wrong
        last = key.rpartition(".")[2]
        near = [name for name in known if name.rpartition(".")[2] == last][:1]
    hint = f"did you mean {near[0]}?" if near else "type python train.py --cfg job to list the keys"
    return f"{key} is not a key of this configuration: {hint}"


NOUNS = {
    "data": "dataset",
    "augment": "augmentation",
    "callbacks": "callback",
    "metrics": "metric",
}  # what a choice of a group is called, if not by the group's name


def unknown_choice(group: str, choice: str, available: Iterable[str]) -> str:
    """An error message for an unknown choice of a group, with the most similar known choice."""
    available = sorted(available)
    near = difflib.get_close_matches(choice, available, n=1, cutoff=0.5)
    hint = f" (did you mean {near[0]}?)" if near else ""
    noun = NOUNS.get(group, group.rpartition("/")[2])  # hydra/sweeper is a sweeper
    return f"{group}={choice}: there is no such {noun}{hint}; choose from {', '.join(available)}"
