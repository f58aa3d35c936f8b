"""The measurements after a training: the best checkpoint on the training and test sets."""

from collections.abc import Sequence
from typing import Any

from glimpse.callbacks.epoch_record import logged, seven_digits
from glimpse.callbacks.pictures import Pictures
from glimpse.data.module import ImageDataModule
from glimpse.distributed.gather import of_all_processes
from glimpse.lightning_compat import callbacks_of, is_dry, limit_test, stop_profiling
from glimpse.monitor import reported_split
from glimpse.parts import Parts

HELD_OUT = ("val", "test")


def measure(parts: Parts) -> int:
    """Measure the best checkpoint and draw it. All processes must call this together.

    Returns:
        The number of training images in an epoch: all, unless an argument such as
        trainer.limit_train_batches ended each epoch early.
    """
    summary = parts.summary
    most, *_ = of_all_processes(parts.record.most_images)  # no process has more than the first
    num_trained = min(most, len(parts.data.splits["train"].rows))
    is_tested = parts.config.test and not summary.is_pruned
    if is_tested:
        summary.update(metrics=summary.metrics | _final_metrics(parts, num_trained))
    summary.update(**_beside_accuracy(parts))
    for callback in callbacks_of(parts.trainer):
        if isinstance(callback, Pictures) and is_tested:
            callback.draw_result(parts.trainer, parts.classifier)
    return num_trained


def _beside_accuracy(parts: Parts) -> dict[str, Any]:
    """The figures beside the accuracy: the majority-class accuracy, the recall by class, and the
    number of measured images of each held-out split that was measured in part."""
    metrics, counts, data = parts.summary.metrics, parts.classifier.counts, parts.data
    split = reported_split(metrics)
    recall = parts.checkpoints.best_recall if split == "val" else counts.recall.get("test")
    found: dict[str, Any] = {"majority_acc": data.majority_accuracy(split)}
    if recall is not None:
        found["class_recall"] = _by_name(recall, data)
    in_part = {
        part: number
        for part, number in counts.num_scored.items()
        if part in HELD_OUT and f"{part}/acc" in metrics and number < len(data.splits[part].rows)
    }
    return found | ({"measured_images": in_part} if in_part else {})


def _by_name(recall: Sequence[float | None], data: ImageDataModule) -> dict[str, float]:
    """The recall of each class that has images, by its name."""
    pairs = zip(data.spec.class_names, recall, strict=True)
    return {name: seven_digits(value) for name, value in pairs if value is not None}


def _final_metrics(parts: Parts, num_trained: int) -> dict[str, float]:
    """The best checkpoint's metrics on the training set, in evaluation mode, and on the test set.

    At most as many training images are measured as an epoch trained on; `test=val` skips them.
    """
    config, trainer, classifier, data = parts.config, parts.trainer, parts.classifier, parts.data
    checkpoints = parts.checkpoints
    best = None if is_dry(trainer) else checkpoints.read_best()
    if best is not None:
        classifier.load_state_dict(best["state_dict"])
    stop_profiling(trainer)
    # Lightning would apply the limit of the test batches to every split.
    limits = {"val": trainer.limit_val_batches, "test": trainer.limit_test_batches}
    was_validated = "val/acc" in checkpoints.best_metrics
    if best is None:  # never validated, unless the best weights are lost
        was_validated = not checkpoints.has_lost_best
    splits = ["val", "test"] if config.tta or not was_validated else ["test"]
    if config.test != "val" and num_trained:
        splits.insert(0, "train")
    metrics: dict[str, float] = {}
    for split in splits:
        if split in data.splits:
            data.batches.score(split, num_images=num_trained if split == "train" else None)
            limit_test(trainer, limits.get(split, 1.0))
            trainer.test(classifier, datamodule=data, verbose=False)
            found = logged(trainer)
            metrics |= {
                n: v for n, v in found.items() if n.startswith(f"{split}/") and n != "train/top5"
            }
    return metrics
