"""The names through which the processes started by DDP find their run."""

import os

RUN_FOLDER = "GLIMPSE_RUN_FOLDER"  # the environment variable that names the run folder
DDP_CONFIG = ".ddp_config.yaml"  # a file in the run folder: the first process's resolved config


def is_ddp_process() -> bool:
    """Whether this process was started by the first process of a DDP run."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and RUN_FOLDER in os.environ
