"""Train any model on any dataset: `python train.py model=convnet data=tiny_imagenet`.

The entry point and nothing more. It imports nothing heavy, so that `--help`, `--cfg job` and a
misspelt key are answered at once; the story of a run is in src/glimpse/run.py. `glimpse train` is the
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


if __name__ == "__main__":
    sys.exit(launch.main())
