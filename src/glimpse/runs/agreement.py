"""Two trained networks on the same images: who is right where, and whether that is chance."""

from glimpse.errors import UserError
from glimpse.insight.significance import McNemar, mcnemar
from glimpse.runs.trained import TrainedRun


def common_split(first: TrainedRun, second: TrainedRun) -> str:
    """The split that measures both: "test" where there is one, else "val".

    Raises:
        UserError: they did not see the same images in the same parts.
    """
    if first.data.fingerprint != second.data.fingerprint:
        raise UserError(
            f"{first.name} and {second.name} have not the same images in their splits: "
            "compare runs of the same data, data.classes, fractions and data.split_seed"
        )
    return first.require_split(None, default="test")


def agreement(first: TrainedRun, second: TrainedRun, split: str) -> tuple[int, int, McNemar]:
    """How many images both got right, how many there are, and McNemar's test of the others."""
    answers = first.predict(split), second.predict(split)
    both = int((answers[0].correct & answers[1].correct).sum())
    return both, len(answers[0]), mcnemar(answers[0].correct, answers[1].correct)
