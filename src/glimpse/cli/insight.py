"""`glimpse confused`, `losses`, `look` and `shift`: what a network has learned and where it fails.

They need only a run folder or a checkpoint. Heavy modules are imported only after the command line
has been parsed.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from glimpse.cli.errors import one_line_errors, require_ending, require_image, require_no_setting
from glimpse.cli.options import (
    Out,
    RunPath,
    Set,
    Split,
    Trust,
    output_file,
    output_folder,
    trained_run,
)
from glimpse.cli.table import print_table
from glimpse.found_checkpoint import find_checkpoint
from glimpse.streams import say
from glimpse.text import plural

MAX_SHIFT = 8  # pixels


def confused(
    run: RunPath,
    min_count: Annotated[
        int, typer.Option("--min", help="list pairs with at least this many mistakes", min=1)
    ] = 5,
    split: Split = None,
    out: Out = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """List the pairs of classes that are confused most often, and draw examples of the worst pairs.

    The default split is the validation set. The picture is written to RUN/figures/most_confused.png
    (most_confused-test.png for the test set).

    Example: glimpse confused outputs/cifar10-convnet/2026-11-23_10-15-00-3fa2b1 --min 10
    """
    with trained_run(run, settings, trust) as trained:
        from glimpse.data.splits import IN_WORDS
        from glimpse.insight.confusion import most_confused
        from glimpse.insight.predictions import images_of
        from glimpse.plots.mistakes import draw_most_confused

        chosen = trained.require_split(split, default="val")
        folder = output_folder(trained.folder, out, "figures")
        found = trained.predict_split(chosen)
        pairs = most_confused(found, min_count=min_count)
        names, num_images = found.class_names, Counter(found.labels.tolist())
        print_table(
            ("actual", "predicted", "count", "of"),
            [(names[a], names[p], str(n), f"{num_images[a]:,}") for a, p, n in pairs],
        )
        if not pairs:
            say(
                f"no pair has at least {plural(min_count, 'mistake')}: type --min 1 to list every pair"
            )
        path = folder / f"most_confused{_ending(chosen)}.png"
        draw_most_confused(
            found,
            partial(images_of, trained.data, chosen),
            f"{trained.name}: most confused {IN_WORDS[chosen]} images",
            path,
        )
        say(f"written: {path}")


def losses(
    run: RunPath,
    num: Annotated[int, typer.Option("--num", help="number of images", min=1, max=400)] = 24,
    split: Split = None,
    out: Out = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Show the images with the highest loss: the most confident mistakes, and often wrong labels.

    The default split is the validation set. The picture is written to RUN/figures/top_losses.png
    (top_losses-test.png for the test set).

    Example: glimpse losses outputs/digits-linear/2026-11-23_10-15-00-3fa2b1 --num 40
    """
    with trained_run(run, settings, trust) as trained:
        import numpy as np

        from glimpse.data.splits import IN_WORDS
        from glimpse.insight.predictions import images_of, names_of
        from glimpse.plots.mistakes import draw_answers

        chosen = trained.require_split(split, default="val")
        folder = output_folder(trained.folder, out, "figures")
        found = trained.predict_split(chosen)
        worst = found.worst(num)
        names, files = found.class_names, names_of(trained.data, chosen)
        print_table(
            ("loss", "actual", "predicted", "probability", "of actual", "image"),
            [
                (
                    f"{found.losses[i]:.3f}",
                    names[found.labels[i]],
                    names[found.predicted[i]],
                    f"{found.confidence[i]:.4f}",
                    f"{np.exp(-found.losses[i]):.4f}",
                    files[i],
                )
                for i in worst
            ],
        )
        path = folder / f"top_losses{_ending(chosen)}.png"
        draw_answers(
            found,
            worst,
            partial(images_of, trained.data, chosen),
            f"{IN_WORDS[chosen]} images with the highest loss",
            path,
        )
        say(f"written: {path}")


def look(
    run: RunPath,
    image: Annotated[
        Path | None,
        typer.Argument(help="an image file (default: the validation image at --position)"),
    ] = None,
    position: Annotated[int, typer.Option(help="index of the validation image", min=0)] = 0,
    class_name: Annotated[
        str | None, typer.Option("--class", help="explain this class instead of the predicted one")
    ] = None,
    out: Out = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Draw the first layer's kernels, each layer's output for one image, and its Grad-CAM.

    Writes first_layer.png, layers.png and, if the network has convolutions, grad_cam.png to
    RUN/look.

    Example: glimpse look outputs/cifar10-convnet/2026-11-23_10-15-00-3fa2b1 cat.jpg
    """
    with one_line_errors(settings or ()):
        if image is not None:
            require_no_setting([image])
            require_image(image, may_be_folder=False)
    with trained_run(run, settings, trust) as trained:
        from glimpse.runs.look import draw_look

        folder = output_folder(trained.folder, out, "look")
        for line in draw_look(
            trained, folder, image=image, position=position, class_name=class_name
        ):
            say(line)


def shift(
    runs: Annotated[list[Path], typer.Argument(help="run folders or checkpoints", metavar="RUN…")],
    max_shift: Annotated[
        int, typer.Option("--max", help="largest shift in pixels", min=1, max=64)
    ] = MAX_SHIFT,
    num: Annotated[
        int, typer.Option("--num", help="number of images to draw from the split", min=1)
    ] = 2000,
    split: Split = None,
    out: Annotated[
        Path | None,
        typer.Option(help="the PNG to write (default: shift.png in the first run's figures/)"),
    ] = None,
    settings: Set = None,
    trust: Trust = None,
) -> None:
    """Plot accuracy against the number of pixels by which images are shifted, for one or more runs.

    Each value is the mean over shifts to the left, right, up and down. The default split is the
    validation set.

    Example: glimpse shift outputs/cifar2-mlp/* outputs/cifar2-convnet/* --out shift.png
    """
    with one_line_errors(settings or (), has_set=True):
        require_no_setting(runs)
        if out:
            require_ending(out, "--out", ".png")
        for run in runs:
            find_checkpoint(run)  # before torch is imported
        from glimpse.plots.curves import draw_shift
        from glimpse.runs.shift import accuracy_by_shift
        from glimpse.runs.trained import TrainedRun

        distances = list(range(max_shift + 1))
        curves: dict[str, list[float]] = {}
        tested = [TrainedRun(path, overrides=settings or (), trust=trust or ()) for path in runs]
        picture = output_file(tested[0].folder, out, "figures", "shift.png")
        for path, trained in zip(runs, tested, strict=True):
            chosen = trained.require_split(split, default="val")
            name = trained.name if trained.name not in curves else str(path)
            curves[name] = accuracy_by_shift(trained, chosen, distances=distances, max_images=num)
        print_table(
            ("run", *(f"{d} px" for d in distances)),
            [(name, *(f"{a:.4f}" for a in found)) for name, found in curves.items()],
        )
        draw_shift(distances, curves, picture)
        say(f"written: {picture}")


def _ending(split: str) -> str:
    """The suffix of a picture's file name.

    It is empty for the validation set, whose pictures replace those drawn by the run.
    """
    return "" if split == "val" else f"-{split}"
