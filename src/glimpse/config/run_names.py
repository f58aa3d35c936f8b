"""Names of run folders: the random id that makes a single run's unique.

sweeps/jobs.py names the folders of a sweep.
"""

import secrets

from omegaconf import OmegaConf


def register_resolvers() -> None:
    """Register the resolver that conf/train.yaml uses in folder names, once per process."""
    if not OmegaConf.has_resolver("run_id"):
        OmegaConf.register_new_resolver("run_id", lambda: secrets.token_hex(3), use_cache=True)
