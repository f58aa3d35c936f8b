"""The configured metrics of each split, added up batch by batch and read when the split ends.

They are torchmetrics, which also adds up the processes of DDP. Validation and the final evaluation
use them, training does not.
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

from glimpse.console import console
from glimpse.crash import is_in_own_code
from glimpse.errors import UserError, first_line
from glimpse.insight.scores import TAILS
from glimpse.losses import widest_float
from glimpse.metrics.calibration import CalibrationError
from glimpse.monitor import USUAL
from glimpse.text import kind_of

NUM_RESAMPLES = 200
MOST_PROBABILITIES = 100_000  # images times classes, of which metrics are resampled
MOST_TRIED = 2_000  # images: two of each class, unless there are thousands of classes


class Scoring:
    """Metrics of probabilities (B, K) and labels (B,), for each split.

    Args:
        metrics: The metrics by name. Metrics for two classes (torchmetrics' Binary…) receive the
            probability (B,) of the second class.
        num_classes: Number of classes, K.

    Raises:
        UserError: a name is taken, or a metric does not fit the classes or gives more than one
            number.
    """

    def __init__(self, metrics: Mapping[str, Metric], num_classes: int) -> None:
        self.metrics = dict(metrics)
        self.num_classes = num_classes
        self._running: dict[str, dict[str, Metric]] = {}  # by split and name
        self._undefined: set[str] = set()  # metrics that a message has named
        for name, metric in self.metrics.items():
            self._try(name, metric)

    @property
    def names(self) -> list[str]:
        """The names of the metrics, in the order of the configuration."""
        return list(self.metrics)

    def start(self, split: str, device: torch.device) -> None:
        """Reset a split."""
        self._running[split] = {n: m.clone().to(device) for n, m in self.metrics.items()}

    def add(self, split: str, logits: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            split: A split that was started.
            logits: (B, K).
            labels: (B,) int64.
        """
        probabilities = _probabilities(logits)
        with torch.autocast(labels.device.type, enabled=False):  # a metric may multiply matrices
            for metric in self._running[split].values():
                metric.update(_taken_by(metric, probabilities), labels)

    def finish(self, split: str) -> dict[str, float]:
        """The value of each metric over all processes. All of them must call this together.

        A metric may be NaN where it is undefined, for example AUROC on images of one class.
        """
        running = self._running.pop(split)
        for metric in running.values():
            # This process may have no images, but the others wait for its lists. Sums are ready, and
            # torchmetrics' own metrics with sums cannot take an empty batch.
            has_lists = any(isinstance(state, list) for state in metric.metric_state.values())
            if has_lists and not metric.update_called:
                nothing = _probabilities(torch.zeros((0, self.num_classes), device=metric.device))
                no_labels = torch.zeros(0, dtype=torch.int64, device=metric.device)
                metric.update(_taken_by(metric, nothing), no_labels)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The ``compute`` method", UserWarning)
            values = {name: float(metric.compute()) for name, metric in running.items()}
        for name, value in values.items():
            if not math.isfinite(value) and name not in self._undefined:
                self._undefined.add(name)
                console.print(f"{split}/{name} is {value} on these images, and is left out")
        return values

    def of(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
        """The finite values of the metrics for logits (N, K) and labels (N,) of one process."""
        self.start("these images", torch.device("cpu"))
        self.add("these images", torch.from_numpy(logits), torch.from_numpy(labels))
        found = self.finish("these images")
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def intervals(
        self, logits: NDArray[np.float32], labels: NDArray[np.int64]
    ) -> dict[str, tuple[float, float]]:
        """The bounds of the metrics that are finite, by a bootstrap as in insight/scores.py.

        A metric takes milliseconds to compute. So there are only 200 resamples, and for more than
        100,000 probabilities there is no interval at all. There is none for the calibration error
        either, nor if all resamples are equal.

        Args:
            logits: (N, K).
            labels: (N,).
        """
        if logits.size > MOST_PROBABILITIES:
            return {}
        random, size = np.random.default_rng(0), len(labels)
        draws = [torch.from_numpy(random.integers(size, size=size)) for _ in range(NUM_RESAMPLES)]
        probabilities, targets = _probabilities(torch.from_numpy(logits)), torch.from_numpy(labels)
        bounds = {}
        for name, metric in self.metrics.items():
            if isinstance(metric, CalibrationError):
                continue
            values = [float(_computed(metric, probabilities[d], targets[d])) for d in draws]
            finite = [value for value in values if math.isfinite(value)]
            if finite:
                low, high = np.quantile(finite, TAILS)
                if low < high:
                    bounds[name] = (float(low), float(high))
        return bounds

    def lower_is_better(self, name: str) -> bool | None:
        """Whether the metric declares that lower is better; None if it declares nothing."""
        higher = self.metrics[name].higher_is_better
        return None if higher is None else not higher

    def _try(self, name: str, metric: Metric) -> None:
        """Require a metric to return one number for a few random predictions."""
        if name in USUAL:
            raise UserError(f"metrics.{name}: every run measures {name}; give yours another name")
        if _is_binary(metric) and self.num_classes != 2:
            raise UserError(
                f"metrics.{name}: {type(metric).__name__} is for two classes, and the data has "
                f"{self.num_classes}; type metrics.{name}._target_=<its Multiclass… form>"
            )
        random = torch.Generator().manual_seed(0)
        size = min(2 * self.num_classes, MOST_TRIED)
        answers = torch.randn(size, self.num_classes, generator=random).softmax(1)
        labels = torch.arange(size) % self.num_classes
        versions = [answers._version, labels._version]
        try:
            found = _computed(metric, answers, labels)
        except Exception as error:  # a user's own metric may raise any error
            if is_in_own_code(error):
                error.add_note(
                    f"while metrics.{name} measured probabilities ({size}, {self.num_classes}) and labels "
                    f"({size},)"
                )
                raise
            raise UserError(
                f"metrics.{name} cannot measure probabilities ({size}, {self.num_classes}) and "
                f"labels ({size},): {first_line(error)}"
            ) from error
        if [answers._version, labels._version] != versions:
            raise UserError(
                f"metrics.{name} changes the probabilities or labels that it is given, which others measure too: "
                "change a copy, as in target = target.clone()"
            )
        if not isinstance(found, Tensor | float | int) or torch.as_tensor(found).numel() != 1:
            what = f"{tuple(found.shape)} numbers" if isinstance(found, Tensor) else kind_of(found)
            remedy = "its compute must return a mean over them"
            if hasattr(metric, "average"):
                remedy = f"type metrics.{name}.average=macro"
            raise UserError(f"metrics.{name} gives {what}, expected one number: {remedy}")


def _probabilities(logits: Tensor) -> Tensor:
    """The softmax, in fp64: in fp32, probabilities near 1 would tie for metrics that rank them."""
    return logits.to(widest_float(logits.device)).softmax(1)


def _is_binary(metric: Metric) -> bool:
    """Whether a metric is one of torchmetrics' metrics for two classes, or derived from one."""
    return any(
        base.__name__.startswith("Binary") and base.__module__.startswith("torchmetrics.")
        for base in type(metric).__mro__
    )


def _taken_by(metric: Metric, probabilities: Tensor) -> Tensor:
    """The part of probabilities (B, K) that a metric takes."""
    return probabilities[:, 1] if _is_binary(metric) else probabilities


def _computed(metric: Metric, probabilities: Tensor, labels: Tensor) -> Any:
    """What a metric returns for probabilities (B, K) and labels (B,) alone."""
    metric = metric.clone()  # a user's own metric may keep numbers that reset() does not know
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resample may lack a class
        metric.update(_taken_by(metric, probabilities), labels)
        return metric.compute()
