"""Name run folders: a random id for a single run, the varying overrides for a job of a sweep."""

import re
import secrets
import sys
import zlib
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf


def register_resolvers() -> None:
    """Register the resolvers that conf/train.yaml uses in folder names, once per process."""
    if OmegaConf.has_resolver("run_id"):
        return
    OmegaConf.register_new_resolver("run_id", lambda: secrets.token_hex(3), use_cache=True)
    OmegaConf.register_new_resolver("swept", _what_varies)


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
