"""The names through which the processes started by DDP find their run."""

import os

RUN_FOLDER = "GLIMPSE_RUN_FOLDER"  # the environment variable that names the run folder
DDP_CONFIG = ".ddp_config.yaml"  # a file in the run folder: the first process's resolved config

# What a process raises when another of its run has gone: gloo's own messages, and torch's error types.
_GLOO = "gloo/transport"
_TYPES = ("DistBackendError", "DistNetworkError")


def has_lost_a_process(error: BaseException) -> bool:
    """Whether an error says that another process of the run has ended. The run can be resumed."""
    return _GLOO in str(error) or type(error).__name__ in _TYPES


def is_ddp_process() -> bool:
    """Whether this process was started by the first process of a DDP run."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and RUN_FOLDER in os.environ
