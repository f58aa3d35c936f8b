"""How the processes that DDP starts learn which run they belong to."""

RUN_FOLDER = "GLIMPSE_RUN_FOLDER"  # the environment variable that names the run folder
DDP_CONFIG = ".ddp_config.yaml"  # in it: the first process's resolved configuration
