"""Where the configuration files lie."""

from pathlib import Path


def config_folder() -> Path:
    """The `conf/` of this checkout, for those who compose without `train.py`."""
    return Path(__file__).parents[3] / "conf"
