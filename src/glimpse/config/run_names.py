"""What conf/ computes: names of run folders, and what is watched.

A single run has a random id, a job of a sweep is named by the overrides that vary.
"""

import re
import secrets
import sys
import zlib
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from glimpse.monitor import inferred_mode


def register_resolvers() -> None:
    """Register the resolvers that conf/ uses, once per process."""
    if OmegaConf.has_resolver("run_id"):
        return
    OmegaConf.register_new_resolver("run_id", lambda: secrets.token_hex(3), use_cache=True)
    OmegaConf.register_new_resolver("swept", _what_varies)
    OmegaConf.register_new_resolver("watched", _watched)
    OmegaConf.register_new_resolver("mode_of", _mode_of)


def _watched(monitor: str | None, otherwise: str) -> str:
    """The metric that a callback or a schedule watches: the run's monitor, if it is given."""
    return monitor or otherwise


def _mode_of(name: str, monitor: str | None, mode: str | None) -> str:
    """ "min" or "max" for a watched metric; the run's `mode` is that of its monitor."""
    return mode if mode and name == monitor else inferred_mode(name)


def _what_varies(overrides: Sequence[str], job_number: int) -> str:
    """The name of a sweep's job, made from the overrides that the sweep varies."""
    swept = {
        override.key_or_group for override in _parse(sys.argv[1:]) if override.is_sweep_override()
    }
    varying = [o for o in _parse(list(overrides)) if o.key_or_group in swept]
    names = [f"{o.key_or_group}-{o.input_line.partition('=')[2]}" for o in varying]  # type: ignore[union-attr]
    return "_".join(map(_as_folder_name, names)) or str(job_number)


def _as_folder_name(text: str) -> str:
    """Replace = , / and similar characters. Paths get a checksum, so that they stay distinct."""
    name = re.sub(r"[^\w.+-]+", "-", text).strip("-")
    return f"{name}-{zlib.crc32(text.encode()):08x}" if "/" in text else name


def _parse(arguments: Sequence[str]) -> list[Override]:
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    return OverridesParser.create().parse_overrides(overrides)
