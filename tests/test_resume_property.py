"""However a run is set up, and wherever it is stopped, three times: resumed, it ends as if unbroken."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from attempts import ANY_CALL, HALF_WRITTEN, MOMENTS, Stop, attempt, difference, left, moments
from conftest import composed
from glimpse.checkpoint_file import is_intact
from makers import MAKERS

SMALL = (
    "data.batch_size=16", "model=convnet_bn", "model.widths=[4]", "model.hidden=8", "seed=3",
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
    usual = ["ema", "early_stopping"]
    callbacks = draw(st.lists(st.sampled_from(usual), unique=True))
    side = 12
    if "early_stopping" in callbacks:
        chosen.append(f"callbacks.early_stopping.patience={draw(st.integers(1, 2))}")
    elif scheduler != "plateau" and draw(st.booleans()):
        callbacks.append("progressive_sizes")
        side = 32
    chosen.append(f"callbacks=[{','.join(callbacks)}]")
    if not draw(st.integers(0, 5)):
        chosen.append("callbacks.pictures.every_n_epochs=1")
    else:
        chosen.append("callbacks.pictures=null")
    augment = draw(st.sampled_from(["none", "crop_flip", "[flip,cutmix]", "trivial_augment"]))
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
        "on_nonfinite=skip", "trainer.gradient_clip_val=1", "model.dropout=0.5",
        "trainer.num_sanity_val_steps=1", "trainer.limit_val_batches=2",
    ]  # fmt: skip
    chosen += draw(st.lists(st.sampled_from(rare), unique=True, max_size=2))
    if "progressive_sizes" not in callbacks and not draw(st.integers(0, 3)):
        workers = draw(st.integers(0, 2))
        return (
            "data=image_folder", "data.root={photos}", "data.presize=12", "data.cache=false",
            f"data.num_workers={workers}", *SMALL, *chosen,
        )  # fmt: skip
    return (*GENERATED, f"data.shape=[1,{side},{side}]", *SMALL, *chosen)


Stops = list[tuple[str, float, signal.Signals, bool]]


def stops(moments: tuple[str, ...], size: int = 3) -> st.SearchStrategy[Stops]:
    """Moments, their places among all of the kind in an unbroken run, and whether the last checkpoint
    is damaged after the stop."""
    one = st.tuples(
        st.sampled_from(moments), st.floats(0, 1), st.sampled_from(SIGNALS), st.booleans()
    )
    return st.lists(one, min_size=size, max_size=size)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    MAKERS["image_folder"](folder, per_class=24)
    return folder / "photos"


@pytest.fixture(scope="module")
def place(photos: Path) -> Iterator[Path]:
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


def check(place: Path, photos: Path, overrides: tuple[str, ...], where: Stops) -> None:
    """Compare an unbroken run with one that is stopped at these moments and resumed."""
    example = Path(tempfile.mkdtemp(dir=place))
    overrides = tuple(o.format(photos=photos) for o in overrides)
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


COMMON: dict[str, Any] = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "phases": [
        Phase.explicit,
        Phase.generate,
    ],  # each example takes seconds, and so would shrinking
    "suppress_health_check": list(HealthCheck),
}


@settings(max_examples=2, **COMMON)
@given(options(), stops((*MOMENTS, HALF_WRITTEN)))
def test_a_few_stopped_runs_equal_unbroken_ones(
    place: Path, photos: Path, overrides: tuple[str, ...], where: Stops
) -> None:
    check(place, photos, overrides, where)


@pytest.mark.slow
@settings(max_examples=15, **COMMON)
@given(options(), stops((*MOMENTS, HALF_WRITTEN, ANY_CALL)))
def test_stopped_runs_equal_unbroken_ones(
    place: Path, photos: Path, overrides: tuple[str, ...], where: Stops
) -> None:
    check(place, photos, overrides, where)


@pytest.mark.slow
@settings(max_examples=2, **COMMON)
@given(options(processes=2), stops((*MOMENTS, HALF_WRITTEN), size=2))
def test_stopped_runs_of_two_processes_equal_unbroken_ones(
    place: Path, photos: Path, overrides: tuple[str, ...], where: Stops
) -> None:
    check(place, photos, overrides, where)
