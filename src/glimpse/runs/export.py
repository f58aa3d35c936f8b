"""Export a trained network as one file for other programs: uint8 images in, probabilities out.

The file contains scaling and normalisation, the network in fp32, softmax, and metadata: the class
names and the format of the input. Left out: cropping and resizing an image file to the input's
size.
"""

import copy
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glimpse.data.preprocess import Preprocess
from glimpse.data.spec import COLOURS
from glimpse.errors import UserError, first_line
from glimpse.files import replacing
from glimpse.runs.trained import TrainedRun
from glimpse.text import plural

ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
OPSET = 18
NUM_CHECKED = 256  # images that the export is checked on
NUM_AT_ONCE = 32
MAX_DIFFERENCE = 1e-3  # largest allowed difference of a probability
FP32 = ("32-true", "32")
ABOUT = "glimpse.json"  # the metadata file in a .pt2 file
FITS = {
    "crop": "crop its centre to the aspect ratio of {size} and resize it to {size} pixels",
    "pad": "resize it to the largest size within {size} pixels and centre it on black",
    "squash": "resize it to {size} pixels",
}


def fitting(trained: TrainedRun) -> str:
    """How to turn an image file into one like the stored images, as `glimpse predict` does."""
    height, width = trained.stored_size
    white = "" if trained.white is None else f" so that {trained.white:,g} becomes 255"
    return (
        "turn it upright by its EXIF orientation, put transparent pixels on white, scale values of "
        f"more than 8 bits to 8 bits{white}, and convert it to {COLOURS[trained.spec.channels]}; then "
        f"{FITS[trained.fit].format(size=f'{width}×{height}')} (bilinear, antialiased)"
    )


class Exported(nn.Module):
    """Map (N, H, W, C) uint8 images to (N, K) float32 probabilities."""

    def __init__(self, preprocess: Preprocess, network: nn.Module) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        seen = self.preprocess(images.permute(0, 3, 1, 2).float())
        return torch.softmax(self.network(seen), 1)


def export_run(trained: TrainedRun, path: Path, *, target: str) -> Iterator[str]:
    """Write the file, compare its outputs with the original's, and yield lines to print.

    Args:
        trained: The network, and the data with the validation images for the comparison.
        path: The file to write.
        target: "onnx" or "torch_export".

    Raises:
        UserError: a package is missing, the network cannot be exported, or the outputs differ.
    """
    height, width = trained.stored_size
    channels = trained.spec.channels
    network = copy.deepcopy(trained.model).cpu().float().to(memory_format=torch.contiguous_format)
    module = Exported(Preprocess(trained.spec), network).eval()
    about = {
        "class_names": list(trained.spec.class_names),
        "input": f"images: (N, {height}, {width}, {channels}) uint8, {COLOURS[channels]}; for an "
        f"image file: {fitting(trained)}",
        "output": "probabilities: (N, K) float32 in the order of class_names",
        "run": trained.name,
        "epoch": trained.epoch,
    }
    example = torch.zeros(2, height, width, channels, dtype=torch.uint8)
    write = {"onnx": _write_onnx, "torch_export": _write_torch_export}[target]
    with replacing(path) as partial:
        run = write(module, example, about, partial)
        yield from _checked(trained, module, run)
    yield f"written: {path} ({path.stat().st_size / 1e6:.1f} MB)"


def images_to_compare(trained: TrainedRun) -> tuple[Tensor, str]:
    """Images (N, H, W, C) uint8 that a network and its copy are compared on, and their name.

    They are validation images or, if the run's data cannot be read, random ones.
    """
    try:
        data = trained.data
    except UserError:
        size = (NUM_CHECKED, *trained.stored_size, trained.spec.channels)
        random = torch.Generator().manual_seed(0)
        images = torch.randint(256, size, dtype=torch.uint8, generator=random)
        return images, f"{NUM_CHECKED} random images, because the run's data cannot be read"
    num_all = len(data.labels("val"))
    positions = np.linspace(0, num_all - 1, min(NUM_CHECKED, num_all)).astype(np.int64)
    images = torch.from_numpy(data.stored_images("val", positions))
    return images, plural(len(images), "validation image")


def _checked(
    trained: TrainedRun, module: Exported, run: Callable[[Tensor], Tensor]
) -> Iterator[str]:
    images, which = images_to_compare(trained)
    found, original = in_batches(run, images), in_batches(module, images)
    difference = (found - original).abs().max().item()
    same = int((found.argmax(1) == original.argmax(1)).sum())
    yield (
        f"compared with the original network in fp32 on {which}: "
        f"probabilities differ by at most {difference:.1e}; {same} have the same class"
    )
    is_resized = trained.stored_size != (trained.spec.height, trained.spec.width)
    if trained.precision not in FP32 or is_resized:
        as_trained = in_batches(trained.probabilities, images)
        rounding = (found - as_trained).abs().max().item()
        same = int((found.argmax(1) == as_trained.argmax(1)).sum())
        yield (
            f"compared with what evaluate and predict compute, in {trained.precision}: "
            f"probabilities differ by at most {rounding:.1e}, from rounding; {same} have the same class"
        )
    if not difference <= MAX_DIFFERENCE:
        raise UserError(
            f"the exported network differs from the original (a probability by {difference:.1e}, "
            f"expected at most {MAX_DIFFERENCE}), so nothing was written: type another --to"
        )


@torch.no_grad()
def in_batches(run: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The results for all images, of few at a time, so that large networks fit into memory."""
    starts = range(0, len(images), NUM_AT_ONCE)
    return torch.cat([run(images[start : start + NUM_AT_ONCE]) for start in starts])


@contextmanager
def _exporting() -> Iterator[None]:
    """Silence torch's exporter, and name what it cannot export.

    Raises:
        UserError: the network cannot be exported.
    """
    logging.disable(logging.WARNING)  # it would print the graph of such a network
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # from the exporter's own code
            yield
    except Exception as error:  # of many types
        cause = error.__cause__ or error
        remedy = (
            "pip install --upgrade onnx onnxscript onnxruntime"
            if isinstance(cause, ImportError)  # torch is newer than they are
            else "--to safetensors, or compute nothing in its forward that depends on the values or "
            "the number of the images"
        )
        raise UserError(
            f"torch cannot export this network ({first_line(cause)}): type {remedy}"
        ) from error
    finally:
        logging.disable(logging.NOTSET)


def _traced(module: Exported, example: Tensor) -> torch.export.ExportedProgram:
    """Export for any number of images.

    torch's usual way runs `forward`, where `len(images)` is a constant. Its strict way reads the
    bytecode: it follows `len`, but less of Python otherwise.
    """
    shapes = {"images": {0: torch.export.Dim("batch", min=1)}}
    try:
        return torch.export.export(module, (example,), dynamic_shapes=shapes)
    except Exception:  # of many types
        return torch.export.export(module, (example,), dynamic_shapes=shapes, strict=True)


def _write_onnx(
    module: Exported, example: Tensor, about: dict[str, Any], path: Path
) -> Callable[[Tensor], Tensor]:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # torch's exporter needs it
    except ImportError as error:
        raise UserError(
            f"--to onnx needs the package {error.name}: type pip install onnx onnxscript onnxruntime"
        ) from error
    with _exporting():
        program = torch.onnx.export(
            _traced(module, example),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes={"images": {0: "batch"}},  # the name of this dimension
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for key, value in about.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        model.metadata_props.add(key=key, value=text)
    onnx.save(model, path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        [found] = session.run(None, {"images": images.numpy()})
        return torch.from_numpy(np.asarray(found))

    return run


def _write_torch_export(
    module: Exported, example: Tensor, about: dict[str, Any], path: Path
) -> Callable[[Tensor], Tensor]:
    with _exporting():
        program = _traced(module, example)
        text = json.dumps(about, ensure_ascii=False, indent=2)
        content = io.BytesIO()  # on a full disk, torch's own writing ends the process
        torch.export.save(program, content, extra_files={ABOUT: text})
    path.write_bytes(content.getbuffer())
    with path.open("rb") as written, _exporting():
        return torch.export.load(written).module()
