"""Let `model=linear,mlp model.widths=[8]` compose, although not every choice has the key.

Hydra composes a sweep's own configuration with the default choice of each group that is swept. A key
that all jobs share would then be an error if the default choice lacks it. Here, it is added. Each
job's own configuration, which Hydra composes with the choice of the job, still rejects the key where
it is unknown.

This changes one function inside Hydra 1.3, for as long as the context lasts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.override_parser.types import OverrideType

from glimpse.config.replacing import LOADER, replaced


@contextmanager
def jobs_judge_shared_keys() -> Iterator[None]:
    """Leave it to the jobs whether a swept group has the keys that are typed for it."""
    before = LOADER.create_defaults_list

    def create(*args: Any, **kwargs: Any) -> Any:
        found = before(*args, **kwargs)
        swept = {one.key_or_group for one in kwargs["overrides_list"] if one.is_sweep_override()}
        for override in found.config_overrides:
            is_shared = override.key_or_group.partition(".")[0] in swept
            if is_shared and override.type is OverrideType.CHANGE:
                override.type = OverrideType.FORCE_ADD
        return found

    with replaced((LOADER, "create_defaults_list", create)):
        yield
