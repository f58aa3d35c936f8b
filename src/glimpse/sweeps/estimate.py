"""Estimate how long the rest of a sweep takes, from the jobs that have ended.

Jobs that share their choices of files (model=mlp, data=cifar10) are assumed to take equally long.
Numbers, such as seeds and learning rates, are assumed to make no difference.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean

from glimpse.sweeps.jobs import Job
from glimpse.text import is_number


class Estimate:
    """Learns how long jobs take."""

    def __init__(self) -> None:
        self._by_kind: dict[tuple[str, ...], list[float]] = defaultdict(list)

    def learn(self, job: Job, seconds: float | None) -> None:
        """Record the time of a finished job, if it is known."""
        if seconds is not None:
            self._by_kind[_kind(job)].append(seconds)

    def left(
        self, waiting: Iterable[Job], running: Sequence[tuple[Job, float]], *, num_at_once: int
    ) -> float | None:
        """Seconds until all jobs have ended; None before the first has ended.

        Args:
            waiting: Jobs that have not started.
            running: The jobs that are running, each with the seconds since it started.
            num_at_once: The number of jobs that run at the same time.
        """
        if not self._by_kind:
            return None
        rest = [max(0.0, self._expected(job) - seconds) for job, seconds in running]
        rest += [self._expected(job) for job in waiting]
        return max(sum(rest) / num_at_once, max(rest, default=0.0))

    def _expected(self, job: Job) -> float:
        alike = self._by_kind.get(_kind(job))
        return fmean(alike or [s for seconds in self._by_kind.values() for s in seconds])


def _kind(job: Job) -> tuple[str, ...]:
    return tuple(line for line in job.varying if not is_number(line.partition("=")[2]))
