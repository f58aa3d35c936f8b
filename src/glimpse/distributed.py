"""The names through which the processes started by DDP find their run."""

RUN_FOLDER = "GLIMPSE_RUN_FOLDER"  # the environment variable that names the run folder
DDP_CONFIG = ".ddp_config.yaml"  # a file in the run folder: the first process's resolved config
