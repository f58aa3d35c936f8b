"""Compare two trained networks on the same images with McNemar's test."""

from glimpse.errors import UserError
from glimpse.insight.significance import McNemar, mcnemar
from glimpse.runs.trained import TrainedRun


def common_split(first: TrainedRun, second: TrainedRun) -> str:
    """The split to compare both networks on: "test" if there is one, otherwise "val".

    Raises:
        UserError: the runs do not have the same images in the same splits.
    """
    if first.data.fingerprint != second.data.fingerprint:
        raise UserError(
            f"{first.name} and {second.name} do not have the same images in their splits: "
            "compare runs of the same data, data.classes, fractions and data.split_seed"
        )
    return first.require_split(None, default="test")


def agreement(first: TrainedRun, second: TrainedRun, split: str) -> tuple[int, int, McNemar]:
    """The number of images that both got right, the number of images, and McNemar's test."""
    answers = first.predict_split(split), second.predict_split(split)
    both = int((answers[0].correct & answers[1].correct).sum())
    return both, len(answers[0]), mcnemar(answers[0].correct, answers[1].correct)
