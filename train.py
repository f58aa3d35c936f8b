"""Train any model on any dataset: `python train.py model=convnet data=tiny_imagenet`.

This is only the entry point. It imports nothing heavy, so that `--help`, `--cfg job` and a misspelt
key are answered at once. src/glimpse/run.py shows a run from top to bottom. `glimpse train` is the
same command.
"""

import sys

try:
    from glimpse import launch
except ModuleNotFoundError as error:
    sys.exit(
        f"{error.name} is not installed for {sys.executable}: "
        "type make setup, then source .venv/bin/activate"
    )
except KeyboardInterrupt:
    sys.exit(130)


if __name__ == "__main__":
    sys.exit(launch.main())
