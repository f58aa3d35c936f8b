"""The names that other programs give to keys and choices of ours, and what to type here instead.

keys.py looks here before it searches for a similar name. flags.py looks here for `--epochs 3`.
"""

from collections.abc import Container

SIZE = "data.presize=64, or data.size=64 for the network's input alone"
DEVICE = "trainer=gpu or trainer=cpu"
CHECKPOINT = "resume=<run folder>, or model.weights=<file> for a new run"
# The last part of a key: what to type, a key or whole settings.
KEYS = {
    "epoch": "trainer.max_epochs",
    "epochs": "trainer.max_epochs",
    "num_epochs": "trainer.max_epochs",
    "n_epochs": "trainer.max_epochs",
    "max_epoch": "trainer.max_epochs",
    "max_epochs": "trainer.max_epochs",
    "batch_size": "data.batch_size",
    "batchsize": "data.batch_size",
    "lr": "optimizer.lr",
    "learning_rate": "optimizer.lr",
    "device": DEVICE,
    "gpu": DEVICE,
    "gpus": DEVICE,
    "cuda": DEVICE,
    "size": SIZE,
    "image_size": SIZE,
    "img_size": SIZE,
    "pretrained": "model=pretrained",
    "ckpt": CHECKPOINT,
    "checkpoint": CHECKPOINT,
}
# A group and a choice of it: the choice here.
CHOICES = {("loss", "ce"): "cross_entropy", ("trainer", "cuda"): "gpu"}
ALWAYS_MEASURED = ("acc", "accuracy")


def setting_for(key: str) -> str | None:
    """What to type in place of a key that other programs have; None for any other key.

    It may stand at the top, under `trainer`, or in the group of the key that it stands for.
    """
    group, _, last = key.rpartition(".")
    setting = KEYS.get(last)
    if setting is None or group not in ("", "trainer", setting.partition("=")[0].partition(".")[0]):
        return None
    return setting


def key_for(key: str, known: Container[str]) -> str | None:
    """The rest of an error message for such a key: a question, or why there is no such key."""
    if key.rpartition(".")[2] == "num_classes" and "data.num_classes" not in known:
        return (
            "the classes come from the data (data=image_folder: from its folders): leave it out; "
            "data.classes=[…] keeps some of them"
        )
    setting = setting_for(key)
    is_here = setting is not None and ("." not in setting or setting.partition("=")[0] in known)
    return f"did you mean {setting}?" if is_here else None


def choice_for(group: str, choice: str) -> str | None:
    """The choice of a group that other programs call by this name; None for any other name."""
    return CHOICES.get((group, choice.lower()))
