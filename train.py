"""Train any model on any dataset: `python train.py model=convnet data=tiny_imagenet`.

The Hydra entry point and nothing more. It imports nothing heavy, so that `--help`, `--cfg job` and
a misspelt key are answered at once; the story of a run is in src/glimpse/run.py.
"""

import sys

try:
    import hydra
    from omegaconf import DictConfig

    from glimpse import launch
except ModuleNotFoundError as error:
    sys.exit(
        f"{error.name} is not installed for {sys.executable}: "
        "type make setup, then source .venv/bin/activate"
    )


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> float | None:
    return launch.job(config)


if __name__ == "__main__":
    sys.exit(launch.main(main))
