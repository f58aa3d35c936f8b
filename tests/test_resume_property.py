"""However a run is set up, and wherever it is stopped, three times: resumed, it ends as if unbroken."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import torchvision
from hypothesis import Phase, given, seed, settings
from hypothesis import strategies as st

from attempts import ANY_CALL, HALF_WRITTEN, MOMENTS, Stop, attempt, difference, left, moments
from conftest import composed, slow
from glimpse.checkpoint_file import is_intact
from makers import MAKERS

ARCHITECTURE = "shufflenet_v2_x0_5"
SMALL = (
    "data.batch_size=16", "model=convnet_bn", "model.widths=[4]", "model.hidden=8", "seed=3",
)  # fmt: skip
PRETRAINED = (
    "data=synthetic", "data.shape=[3,32,32]", "data.num_classes=3", "data.num_train=40", "data.num_val=20",
    "data.batch_size=8", "model=pretrained", f"model.architecture={ARCHITECTURE}",
    "model.weights={weights}", "seed=3",
)  # fmt: skip
GENERATED = ("data=synthetic", "data.num_train=100", "data.num_val=40")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
ENDS = {0, 130, 143, -signal.SIGKILL}  # of an attempt


@st.composite
def options(draw: st.DrawFn, processes: int = 1) -> tuple[str, ...]:
    """Overrides of a run of seconds."""
    chosen: list[str] = ["trainer=cpu" if processes == 1 else "trainer=ddp_cpu"]
    schedules = ["onecycle", "cosine", "plateau", "step", "constant"]
    scheduler = draw(st.sampled_from(schedules))
    chosen.append(f"scheduler={scheduler}")
    chosen += {"plateau": ["scheduler.patience=0"], "step": ["scheduler.every=1"]}.get(
        scheduler, []
    )
    optimizer = draw(st.sampled_from(["sgd", "adam", "adamw", "muon"]))
    chosen += [f"optimizer={optimizer}"] + ["optimizer.momentum=0.9"] * (optimizer == "sgd")
    usual = ["ema", "early_stopping", "time_limit"]
    callbacks = draw(st.lists(st.sampled_from(usual), unique=True))
    of_pretrained = draw(st.sampled_from([None, None, "finetune", "frozen_features"]))
    if processes > 1:  # which both refuse
        of_pretrained = None
    elif of_pretrained:
        callbacks.append(of_pretrained)
    elif not draw(st.integers(0, 3)):
        callbacks.append("hard_examples")
    side = 12
    if "early_stopping" in callbacks:
        chosen.append(f"callbacks.early_stopping.patience={draw(st.integers(1, 2))}")
    elif scheduler != "plateau" and not of_pretrained and draw(st.booleans()):
        callbacks.append("progressive_sizes")
        side = 32
    chosen.append(f"callbacks=[{','.join(callbacks)}]")
    if not draw(st.integers(0, 5)):
        chosen.append("callbacks.pictures.every_n_epochs=1")
    else:
        chosen.append("callbacks.pictures=null")
    augments = ["none", "crop_flip", "[flip,cutmix]", "trivial_augment"]
    augment = "none" if of_pretrained == "frozen_features" else draw(st.sampled_from(augments))
    chosen.append(f"augment={augment}")
    chosen.append(f"trainer.accumulate_grad_batches={draw(st.sampled_from([1, 1, 2, 3]))}")
    if draw(st.booleans()):
        chosen.append(f"trainer.val_check_interval={draw(st.sampled_from([0.5, 0.3, 2]))}")
    elif not draw(st.integers(0, 3)):
        chosen.append("trainer.check_val_every_n_epoch=2")
    epochs = draw(st.integers(2, 4))
    if "progressive_sizes" in callbacks:
        epochs = max(3, epochs)
    chosen.append(f"trainer.max_epochs={epochs}")
    rare = [
        "trainer.max_steps=9", "trainer.limit_train_batches=4", "trainer.overfit_batches=2",
        "checkpoints.top_k=2", "metrics=[f1]", "data.sampling=balanced", "monitor=train/loss",
        "on_nonfinite=skip", "trainer.gradient_clip_val=1", "trainer.num_sanity_val_steps=1",
        "trainer.limit_val_batches=2", *([] if of_pretrained else ["model.dropout=0.5"]),
    ]  # fmt: skip
    chosen += draw(st.lists(st.sampled_from(rare), unique=True, max_size=2))
    if of_pretrained:
        return (*PRETRAINED, *chosen)
    if "progressive_sizes" not in callbacks and not draw(st.integers(0, 3)):
        workers = draw(st.integers(0, 2))
        return (
            "data=image_folder", "data.root={photos}", "data.presize=12", "data.cache=false",
            f"data.num_workers={workers}", *SMALL, *chosen,
        )  # fmt: skip
    return (*GENERATED, f"data.shape=[1,{side},{side}]", *SMALL, *chosen)


Example = TypeVar("Example")
Stops = list[tuple[str, float, signal.Signals, bool]]


def stops(moments: tuple[str, ...], size: int = 3) -> st.SearchStrategy[Stops]:
    """Moments, their places among all of the kind in an unbroken run, and whether the last checkpoint
    is damaged after the stop."""
    one = st.tuples(
        st.sampled_from(moments), st.floats(0, 1), st.sampled_from(SIGNALS), st.booleans()
    )
    return st.lists(one, min_size=size, max_size=size)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What the overrides name: a folder of images, and a file of weights as if published."""
    folder = tmp_path_factory.mktemp("files")
    MAKERS["image_folder"](folder, per_class=24)
    torch.manual_seed(0)
    network = torchvision.models.get_model(ARCHITECTURE, weights=None)
    torch.save(network.state_dict(), folder / "weights.pth")
    return {"photos": folder / "photos", "weights": folder / "weights.pth"}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder for all examples, each of which removes its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def plainly(overrides: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    from glimpse.config.build import plain

    config, chosen = composed(*overrides)
    return plain(config), {group: str(chosen[group]) for group in ("data", "model")}


def damage_last(folder: Path) -> bool:
    """Cut the last checkpoint if there is another to fall back on."""
    paths = [p for p in (folder / "checkpoints").glob("[!.]*.ckpt") if p.name != "last.ckpt"]
    last = folder / "checkpoints" / "last.ckpt"
    if not paths or not last.exists():
        return False
    last.write_bytes(last.read_bytes()[:-1])
    return True


def check(place: Path, files: dict[str, Path], overrides: tuple[str, ...], where: Stops) -> None:
    """Compare an unbroken run with one that is stopped at these moments and resumed."""
    example = Path(tempfile.mkdtemp(dir=place))
    overrides = tuple(o.format(**files) for o in overrides)
    overrides = (*overrides, f"data_dir={example / 'data'}")
    config, names = plainly(overrides)
    unbroken, stopped = example / "unbroken", example / "stopped"
    code = attempt(config, unbroken, names)
    assert code == 0, (example / "unbroken.log").read_text()
    counts = moments(unbroken) | {ANY_CALL: 1_500_000}
    done: list[Any] = []
    for moment, share, number, damages in where:
        stop = Stop(moment, int(share * counts.get(moment, 1)), number)
        code = attempt(config | {"resume": str(stopped) if done else None}, stopped, names, stop)
        done.append((stop, code, damages and damage_last(stopped)))
        log = (example / "stopped.log").read_text()
        assert code in ENDS, f"{overrides} {done}\n{log}"
        assert number != signal.SIGKILL or code in (0, -signal.SIGKILL), f"{done}\n{log}"
        for path in (stopped / "checkpoints").glob("[!.]*.ckpt"):
            assert is_intact(path) or done[-1][2], (path, done)
    code = attempt(config | {"resume": str(stopped)}, stopped, names)
    log = (example / "stopped.log").read_text()
    assert code == 0, f"{overrides} {done}\n{log}"
    found = difference(left(unbroken), left(stopped))
    assert found is None, f"{found}\n{' '.join(overrides)}\n{done}\n{log}"
    assert not list(stopped.rglob(".*.partial*"))
    shutil.rmtree(example)


def drawn(number: int, strategy: st.SearchStrategy[Example]) -> Example:
    """A random example, the same each time. A test of its own for each ends in time on a busy machine."""
    found: list[Example] = []

    @seed(number)
    @settings(max_examples=2, database=None, phases=[Phase.generate])
    @given(strategy)
    def note(example: Example) -> None:
        found.append(example)

    note()
    return found[-1]  # the first is always the simplest


@pytest.mark.parametrize("number", [0, slow(1)])
def test_a_stopped_run_equals_an_unbroken_one(
    place: Path, files: dict[str, Path], number: int
) -> None:
    example = drawn(number, st.tuples(options(), stops((*MOMENTS, HALF_WRITTEN))))
    check(place, files, *example)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(2, 12))
def test_more_stopped_runs_equal_unbroken_ones(
    place: Path, files: dict[str, Path], number: int
) -> None:
    example = drawn(number, st.tuples(options(), stops((*MOMENTS, HALF_WRITTEN, ANY_CALL))))
    check(place, files, *example)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(12, 14))
def test_stopped_runs_of_two_processes_equal_unbroken_ones(
    place: Path, files: dict[str, Path], number: int
) -> None:
    where = stops((*MOMENTS, HALF_WRITTEN), size=1)  # each attempt imports torch once more
    check(place, files, *drawn(number, st.tuples(options(processes=2), where)))
