"""The names through which the processes started by DDP find their run."""

RUN_FOLDER = "GLIMPSE_RUN_FOLDER"  # the environment variable that names the run folder
DDP_CONFIG = ".ddp_config.yaml"  # a file in the run folder: the first process's resolved config

# What a process raises when another of its run has gone: gloo's own messages, and torch's error types.
_GLOO = "gloo/transport"
_TYPES = ("DistBackendError", "DistNetworkError")


def has_lost_a_process(error: BaseException) -> bool:
    """Whether an error says that another process of the run has ended. The run can be resumed."""
    return _GLOO in str(error) or type(error).__name__ in _TYPES
