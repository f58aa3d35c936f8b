"""The learning rates that the range tests in a folder (`task=lr_find`) suggest, for its report.

These runs do not train, so they have no row among the trainings.
"""

from collections.abc import Sequence
from pathlib import Path

from glimpse.runs.folder import Run
from glimpse.runs.section import Section
from glimpse.text import plural

MOST = 10  # tests that the report lists
SUGGESTED = "lr_find/valley"


def range_tests(runs: Sequence[Run], root: Path) -> Section | None:
    """List the tests below `root` with the rate that each of them suggests; None without any."""
    tests = [run for run in runs if not run.is_training]
    if not tests:
        return None
    told = [f"{plural(len(tests), 'run')} of task=lr_find:", *(_told(one, root) for one in tests)]
    more = [f"and {len(tests) - MOST:,} more"] * (len(tests) > MOST)
    return Section("Learning-rate tests", told[: MOST + 1] + more)


def _told(test: Run, root: Path) -> str:
    rate = test.metrics.get(SUGGESTED)
    found = f"suggests optimizer.lr={rate:.2g}" if rate is not None else test.status
    return f"{test.model} on {test.data} {found} ({test.folder.relative_to(root)})"
