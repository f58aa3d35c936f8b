"""The resolvers of conf/, such as `${run_id:}`: names of run folders, and metrics to watch.

A single run has a random id. sweeps/jobs.py names the folders of a sweep.
"""

import secrets

from omegaconf import OmegaConf

from glimpse.monitor import inferred_mode


def register_resolvers() -> None:
    """Register the resolvers that conf/ uses, once per process."""
    if OmegaConf.has_resolver("run_id"):
        return
    OmegaConf.register_new_resolver("run_id", lambda: secrets.token_hex(3), use_cache=True)
    OmegaConf.register_new_resolver("watched", _watched)
    OmegaConf.register_new_resolver("mode_of", _mode_of)


def _watched(monitor: str | None, otherwise: str) -> str:
    """The metric that a callback or a schedule watches: the run's monitor, if it is given."""
    return monitor or otherwise


def _mode_of(name: str, monitor: str | None, mode: str | None) -> str:
    """ "min" or "max" for a watched metric. The run's `mode` applies only to its monitor."""
    return mode if mode and name == monitor else inferred_mode(str(name))
