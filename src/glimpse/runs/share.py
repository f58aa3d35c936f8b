"""Write a network's weights as plain tensors, with a model card, for people without this package.

The file is in the safetensors format. A network of torchvision or timm keeps its library's names
and shapes, so that the library loads it; other networks keep their own. The card is a README.md in
the format of huggingface_hub: YAML between two lines of dashes, then Markdown.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save
from torch import Tensor, nn

from glimpse.config.build import plain
from glimpse.data.preprocess import Preprocess
from glimpse.data.spec import COLOURS
from glimpse.data.splits import IN_WORDS
from glimpse.errors import UserError
from glimpse.files import replacing, write_text
from glimpse.found_checkpoint import BEST
from glimpse.models.pretrained import Pretrained, find
from glimpse.runs.export import MAX_DIFFERENCE, fitting, images_to_compare, in_batches
from glimpse.runs.folder import read_run
from glimpse.runs.trained import TrainedRun
from glimpse.streams import printable
from glimpse.text import plural

CARD = "README.md"
MARK = "<!-- written by glimpse export -->"  # in a card that may be replaced


def share_run(trained: TrainedRun, path: Path) -> Iterator[str]:
    """Write the weights and the card, check them, and yield lines to print.

    Args:
        trained: The network, and the data with validation images for the check.
        path: The file of weights. The card is written beside it.

    Raises:
        UserError: the folder contains another README.md, or the library's network gives other
            outputs.
    """
    card = path.with_name(CARD)
    before = card.read_text(encoding="utf-8", errors="replace") if card.exists() else None
    if before is not None and not (MARK in before and path.name in before):
        raise UserError(
            f"{card} already exists: type --out <new folder>/{path.name}, where a model card can be "
            "written beside the weights"
        )
    network = copy.deepcopy(trained.model).cpu().float()
    about = {"format": "pt", "class_names": json.dumps(list(trained.spec.class_names))}
    if isinstance(network, Pretrained):
        state = network.library_weights()
        mean, std = network.statistics
        about |= {"mean": json.dumps(mean), "std": json.dumps(std)}  # model.weights=<file> reads it
    else:
        state = network.state_dict()
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, metadata=about))  # Python names a full disk
        if isinstance(network, Pretrained):
            yield _checked(trained, network, load_file(partial))
    write_text(card, _card(trained, path.name))
    yield f"written: {path} ({path.stat().st_size / 1e6:.1f} MB, {plural(len(tensors), 'tensor')}) and {card}"
    if not isinstance(network, Pretrained):
        yield f"the tensors are named as in {type(network).__module__}.{type(network).__qualname__}"


def _checked(trained: TrainedRun, network: Pretrained, state: dict[str, Tensor]) -> str:
    """Load the weights into the library's own network, and compare its outputs."""
    plain: nn.Module = find(network.architecture, trained.spec.num_classes).network
    plain.load_state_dict(state)
    plain.eval()
    images, which = images_to_compare(trained)
    pixels = images.permute(0, 3, 1, 2)
    mean, std = network.statistics
    as_library = Preprocess(replace(trained.spec, mean=mean, std=std))
    seen = Preprocess(trained.spec)(pixels.float())
    theirs = as_library(pixels.expand(-1, 3, -1, -1).float())
    expected = torch.softmax(in_batches(network, seen), 1)
    found = torch.softmax(in_batches(plain, theirs), 1)
    difference = (found - expected).abs().max().item()
    library = _library(network)
    if not difference <= MAX_DIFFERENCE:
        raise UserError(
            f"{library}'s {network.architecture} gives different probabilities with these weights ("
            f"by up to {difference:.1e}), so nothing was written: type --to onnx"
        )
    return (
        f"compared with the original network on {which}: probabilities of "
        f"{library}'s {network.architecture} differ by at most {difference:.1e}"
    )


def _library(network: Pretrained) -> str:
    return "timm" if type(network.backbone).__module__.startswith("timm.") else "torchvision"


def _in_words(split: str, measured_images: Mapping[str, int]) -> str:
    """The name of a split, with the number of images if only a part was measured."""
    part = f"{IN_WORDS[split]} set"
    if split in measured_images:
        return f"first {plural(measured_images[split], 'image')} of the {part}"
    return part


def _card(trained: TrainedRun, weights: str) -> str:
    """The model card: metadata for the Hub, then what the network is and how to load it."""
    run = read_run(trained.folder) if trained.folder.is_dir() else None
    data = printable(run.data if run else str(trained.config.data["_target_"]))
    network, spec = trained.model, trained.spec
    is_timm = isinstance(network, Pretrained) and _library(network) == "timm"
    name = network.architecture if isinstance(network, Pretrained) else type(network).__name__
    metadata: dict[str, Any] = {
        "library_name": "timm" if is_timm else "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "glimpse"],
        "metrics": ["accuracy"],
    }
    is_best = trained.checkpoint.name == BEST  # the run's metrics are those of its best checkpoint
    metrics = trained.metrics if is_best else {}
    in_part = run.measured_images if run else {}
    accuracies = [
        (_in_words(split, in_part), metrics[f"{split}/acc"])
        for split in ("val", "test")
        if f"{split}/acc" in metrics
    ]
    if accuracies:
        results = [
            {"type": "accuracy", "value": round(value, 4), "name": f"accuracy on the {part}"}
            for part, value in accuracies
        ]
        about = {
            "task": {"type": "image-classification"},
            "dataset": {"name": data, "type": data},
            "metrics": results,
        }
        metadata["model-index"] = [{"name": f"{name} on {data}", "results": [about]}]
    table = [f"| accuracy on the {part} | {value:.4f} |" for part, value in accuracies]
    majority = run.number("majority_acc") if run else None
    if table and run and majority is not None:
        part = _in_words(run.reported, in_part)
        table.append(f"| share of the most frequent class in the {part} | {majority:.4f} |")
    header = ["| measure | value |", "|---|---|"]
    front = yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
    measures = "".join(f"{line}\n" for line in [*header, *table, ""]) if table else ""
    classes = json.dumps([printable(one) for one in spec.class_names], ensure_ascii=False)
    return f"""---
{front}---
{MARK}
# {name} on {_as_text(data)}

A classifier of {spec.num_classes} classes, trained with glimpse for {plural(trained.epoch, "epoch")}.

{measures}## Load it

```python
{_loading(trained, weights)}
```

## Input and output

{_input_and_output(trained)}

The classes, in the order of the output:

```json
{classes}
```
"""


def _as_text(name: str) -> str:
    """A name, escaped so that Markdown shows it as it is."""
    return re.sub(r"[\\`*<>\[\]&!|#]", r"\\\g<0>", name)


def _loading(trained: TrainedRun, weights: str) -> str:
    """Three lines of Python that load the weights, after their imports."""
    network, num_classes = trained.model, trained.spec.num_classes
    arguments = plain(trained.config.model)
    target = arguments.pop("_target_")
    words = ", ".join(f"{key}={value!r}" for key, value in arguments.items() if key != "weights")
    make = f"network = ...  # {target}, with {words or 'no arguments'}"
    library = "torch"
    if isinstance(network, Pretrained):
        library = _library(network)
        call = "create_model" if library == "timm" else "models.get_model"
        architecture = network.architecture.removeprefix("timm/")
        more = "".join(f", {key}={value!r}" for key, value in network.options.items())
        make = f'network = {library}.{call}("{architecture}", num_classes={num_classes}{more})'
    return f"""import {library}
from safetensors.torch import load_file

{make}
network.load_state_dict(load_file("{weights}"))
network.eval()"""


def _input_and_output(trained: TrainedRun) -> str:
    spec, network = trained.spec, trained.model
    statistics, shown = (spec.mean, spec.std), ""
    if isinstance(network, Pretrained):
        statistics = network.statistics
        shown = ", the same in each of three channels" if spec.channels == 1 else ""
    steps = fitting(trained)
    if trained.stored_size != (spec.height, spec.width):
        steps += f", then resize it to {spec.width}×{spec.height}"
    mean, std = ([round(value, 4) for value in values] for values in statistics)
    return f"""Input: (N, C, {spec.height}, {spec.width}) float32 of {COLOURS[spec.channels]} images{shown}. \
For an image file: {steps}.
Scale the values to [0, 1], and normalise each channel with
mean {mean} and standard deviation {std}.
Output: (N, {spec.num_classes}) logits."""
