"""The entry point of the `glimpse` command. `glimpse train` skips the imports of the others."""

import sys
from collections.abc import Callable


def main() -> int:
    """Run the command given on the command line; returns its exit code."""
    run_command: Callable[[], int]
    try:
        if sys.argv[1:2] == ["train"]:
            from glimpse.launch import main as run_command

            del sys.argv[1]
        else:
            from glimpse.cli.main import main as run_command
    except KeyboardInterrupt:
        return 130
    return run_command()
