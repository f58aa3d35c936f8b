"""The entry point of the `glimpse` command. `glimpse train` skips the imports of the others."""

import sys


def main() -> int:
    """Run the command given on the command line; returns its exit code."""
    if sys.argv[1:2] == ["train"]:
        from glimpse import launch

        del sys.argv[1]
        return launch.main()
    try:
        from glimpse.cli.main import main as run_command
    except KeyboardInterrupt:
        return 130

    return run_command()
