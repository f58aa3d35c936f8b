"""Where the `glimpse` command begins: `glimpse train` is passed on before anything else is imported."""

import sys

from glimpse.distributed import is_ddp_process


def main() -> int:
    """Run the command given on the command line; returns its exit code."""
    is_train = sys.argv[1:2] == ["train"]
    if is_train or is_ddp_process():  # its processes are started with these arguments again
        from glimpse import launch

        if is_train:
            del sys.argv[1]
        return launch.main()
    from glimpse.cli.main import main as run_command

    return run_command()
