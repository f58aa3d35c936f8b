"""The location of the configuration files."""

from pathlib import Path


def config_folder() -> Path:
    """The `conf/` folder of this checkout, for composing without `train.py`."""
    return Path(__file__).parents[3] / "conf"
