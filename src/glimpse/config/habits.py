"""The names that other programs give to keys and choices of ours, and what to type here instead.

keys.py looks here before it searches for a similar name. flags.py looks here for `--epochs 3`.
"""

import importlib.util
import re
from collections.abc import Container
from pathlib import Path

from glimpse.config.schema import TARGETS

SIZE = "data.presize=64, or data.size=64 for the network's input alone"
DEVICE = "trainer=gpu or trainer=cpu"
CHECKPOINT = "resume=<run folder>, or model.weights=<file> for a new run"
IMAGES = "data=image_folder data.root=<your images>, or data_dir=<folder> for downloads"
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
    "wd": "optimizer.weight_decay",
    "n_jobs": "hydra.launcher.n_jobs",
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
# A whole key: what to type, a key or whole settings.
WHOLE_KEYS = {
    "datamodule": "data",
    "dataset": "data",
    "data_path": IMAGES,
    "root": IMAGES,
    "data.seed": "data.split_seed for the splits, or seed for all else",
    "data.shuffle": "data.sampling",
    "model.lr": "optimizer.lr",
    "model.name": "model",
    "optimizer.name": "optimizer",
    "scheduler.lr": "optimizer.lr",
    "scheduler.max_lr": "optimizer.lr",
    "scheduler.name": "scheduler",
    "sweeper": "hydra/sweeper",
    "launcher": "hydra/launcher",
    "trainer.logger": "logger",
    "trainer.callbacks": "callbacks",
    "trainer.default_root_dir": "output_dir",
    "trainer.enable_checkpointing": "checkpoints.top_k",
}
OF_THE_RUN = (  # arguments of Lightning's Trainer that no key sets
    "trainer.enable_progress_bar", "trainer.enable_model_summary", "trainer.use_distributed_sampler",
    "trainer.plugins", "trainer.barebones",
)  # fmt: skip
# A group and a choice of it: the choice here.
CHOICES = {
    ("loss", "ce"): "cross_entropy", ("trainer", "cuda"): "gpu",
    ("scheduler", "none"): "constant", ("scheduler", "null"): "constant",
}  # fmt: skip
ALWAYS_MEASURED = ("acc", "accuracy")


def setting_for(key: str) -> str | None:
    """What to type in place of a key that other programs have; None for any other key.

    It may stand at the top, in the group of the key that it stands for, or under any name that is
    no group of objects.
    """
    if key in WHOLE_KEYS:
        return WHOLE_KEYS[key]
    group, _, last = key.rpartition(".")
    setting = KEYS.get(last)
    others = {*TARGETS, "hydra"} - {(setting or "").partition("=")[0].partition(".")[0]}
    return None if group.partition(".")[0] in others else setting


def key_for(key: str, known: Container[str]) -> str | None:
    """The rest of an error message for such a key: a question, or why there is no such key."""
    if key.rpartition(".")[2] == "num_classes" and "data.num_classes" not in known:
        return (
            "the classes come from the data (data=image_folder: from its folders): leave it out; "
            "data.classes=[…] keeps some of them"
        )
    if key in OF_THE_RUN:
        return "the run itself decides this: leave it out"
    setting = setting_for(key)
    is_here = setting is not None and (
        key in WHOLE_KEYS or "." not in setting or setting.partition("=")[0] in known
    )
    return f"did you mean {setting}?" if is_here else None


def choice_for(group: str, choice: str) -> str | None:
    """The choice of a group that other programs call by this name; None for any other name."""
    return CHOICES.get((group, choice.lower()))


def architecture(choice: str) -> str | None:
    """The name of a network of torchvision, whose files are searched without importing them."""
    found = importlib.util.find_spec("torchvision")
    name = choice.lower()
    if found is None or found.origin is None or not name.isidentifier():
        return None
    files = (Path(found.origin).parent / "models").glob("*.py")
    start = re.compile(rf"^def {name}\(\s*\*, weights: ", re.MULTILINE)
    return name if any(start.search(file.read_text(encoding="utf-8")) for file in files) else None
