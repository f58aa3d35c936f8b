"""Train with this project's configuration: `python train.py optimizer.lr=0.01`."""

import sys
from pathlib import Path

try:
    from glimpse.launch import main
except KeyboardInterrupt:
    sys.exit(130)

if __name__ == "__main__":
    sys.exit(main(config_dir=Path(__file__).parent / "conf", config_name="project"))
