"""How many examples a fuzz test draws: a few, the same each time, or with GLIMPSE_FUZZ=1 many new ones."""

import os

from hypothesis import HealthCheck, settings

TIMES = 20  # as many as in the short form


def examples(number: int) -> settings:
    """The settings of a test that draws `number` examples in `make test`, and more in `make fuzz`."""
    is_long = os.environ.get("GLIMPSE_FUZZ") == "1"
    return settings(
        max_examples=number * TIMES if is_long else number,
        derandomize=not is_long,
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
