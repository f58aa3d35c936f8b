"""Disturb sweeps for a given time, and check that nothing is lost, doubled or changed; `make soak`.

Each round draws a sweep of short runs and runs its command several times. Each time, something is done to it at
a random moment: SIGINT, SIGTERM, SIGHUP or SIGKILL to the sweep, to a worker, to one process of a run of two,
or SIGKILL to all of them at once; or no file may grow beyond a few kilobytes, as on a full disk. Then the command
is repeated until it ends well. The round is good if

  - every job has finished, and the folder and sweep.json hold each job once and nothing else;
  - weights, metrics and results equal those of an undisturbed sweep, bit for bit;
  - no temporary file, no lock and no process is left.

The first bad round ends the program with exit code 1; its folder stays. Linux only. Left out: GPUs, a sudden loss
of power, which may lose what the disk has not written yet.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

from glimpse.runs.same_bits import compare_bits

REPOSITORY = Path(__file__).parents[1]
NUM_EPOCHS = 40
QUICK = (
    "data=synthetic", "data.shape=[1,8,8]", "data.num_train=64", "data.num_val=32",
    "data.batch_size=16", "trainer=cpu", f"trainer.max_epochs={NUM_EPOCHS}", "logger=none",
    "callbacks.pictures=null", "name=s", "sweep.retry_failed=true",
)  # fmt: skip
# kind: how many equal commands run at once, and what they sweep
KINDS: dict[str, tuple[int, tuple[str, ...]]] = {
    "one": (1, ("model=linear,mlp", "seed=1,2")),
    "side_by_side": (1, ("model=linear,mlp", "seed=1,2", "hydra.launcher.n_jobs=2")),
    "two_commands": (2, ("model=linear,mlp", "seed=1,2")),
    "two_processes": (1, ("model=mlp", "seed=1,2", "trainer=ddp_cpu")),
    "much_state": (
        1, ("model=convnet_bn", "model.widths=[4,8]", "model.hidden=8", "augment=[crop_flip,cutmix]",
            "callbacks=[ema]", "optimizer=muon,sgd"),
    ),
}  # fmt: skip
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL)
TARGETS = ("sweep", "sweep", "worker", "worker", "rank", "all", "disk")
MOST_BYTES = (500, 30_000)  # that a file may have on a full disk: from, to
MOST_COMMANDS = 10  # to end well
PATIENCE = 120.0  # seconds until a command has to react


class BadRoundError(Exception):
    """Something was lost, doubled, changed or left behind."""


def main() -> int:
    """Disturb, check, print counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10, help="rounds begin until then")
    parser.add_argument("--seed", type=int, help="of all that is drawn; default: the time")
    parser.add_argument("--kind", choices=KINDS, help="the sweep of all rounds; default: drawn")
    arguments = parser.parse_args()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    rng, counts = random.Random(seed), Counter[str]()
    folder = Path(mkdtemp(prefix="soak-"))
    print(f"seed {seed}, in {folder}", flush=True)
    began = time.monotonic()
    while not counts["rounds"] or time.monotonic() - began < 60 * arguments.minutes:
        kind = arguments.kind or rng.choice(list(KINDS))
        try:
            print(f"round {counts['rounds'] + 1}, {kind}: ", end="", flush=True)
            play(folder, kind, rng, counts)
        except BadRoundError as error:
            print(f"\nBAD: {error}\nsee {folder}")
            return 1
        print("equal", flush=True)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    for what, number in sorted(counts.items()):
        print(f"{what}: {number}")
    shutil.rmtree(folder)
    return 0


def play(folder: Path, kind: str, rng: random.Random, counts: Counter[str]) -> None:
    """One round.

    Raises:
        BadRoundError: it went wrong.
    """
    expected, disturbed = folder / f"undisturbed-{kind}", folder / "disturbed"
    if not expected.exists():
        expected.mkdir()
        if run(expected, kind) != 0:
            raise BadRoundError(f"the undisturbed sweep of {kind} failed")
    disturbed.mkdir()
    for _ in range(rng.randint(2, 4)):
        what = disturb(disturbed, kind, rng)
        counts["commands disturbed"] += 1
        counts[f"  {what}"] += 1
        print(what, end=", ", flush=True)
    for number in range(MOST_COMMANDS):  # noqa: B007
        if run(disturbed, kind) == 0:
            break
    counts["commands to end well"] += number + 1
    require_same(disturbed, expected)
    counts["jobs compared"] += len(jobs_of(expected))
    counts["rounds"] += 1
    shutil.rmtree(disturbed)


def run(folder: Path, kind: str) -> int:
    """Run the command of a round undisturbed, as often at once as its kind says: the highest exit code."""
    running = [started(folder, kind) for _ in range(KINDS[kind][0])]
    return max(abs(process.wait(10 * PATIENCE)) for process in running)


def started(folder: Path, kind: str, *, most_bytes: int | None = None) -> subprocess.Popen[bytes]:
    """Start the command; `most_bytes` is the size that no file may exceed."""

    def limit() -> None:
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))

    command = [sys.executable, str(REPOSITORY / "train.py"), "-m", *QUICK, *KINDS[kind][1]]
    name = f"log-{len(list(folder.glob('log-*')))}.txt"
    with (folder / name).open("w") as log:
        return subprocess.Popen(
            command, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log,
            preexec_fn=limit,
        )  # fmt: skip


def disturb(folder: Path, kind: str, rng: random.Random) -> str:
    """Run the command and disturb it once at a random moment; says how."""
    has_ranks = "trainer=ddp_cpu" in KINDS[kind][1]
    target = rng.choice([target for target in TARGETS if has_ranks or target != "rank"])
    most_bytes = rng.randint(*MOST_BYTES) if target == "disk" else None
    running = [started(folder, kind, most_bytes=most_bytes) for _ in range(KINDS[kind][0])]
    if target == "disk":
        wait(running)
        return "full disk"
    if rng.random() < 0.25:
        time.sleep(rng.random() * 8)  # also before anything is trained
    else:
        wait_for_progress(folder, rng.randint(1, NUM_EPOCHS), running)
        time.sleep(rng.random() * 0.2)
    number = rng.choice(SIGNALS)
    found = list(processes(folder))
    if target == "all":
        hit, number = [pid for pid, _ in found], signal.SIGKILL
    elif target == "sweep":
        hit = [rng.choice(running).pid]
    else:
        role = [pid for pid, is_rank in found if is_rank == (target == "rank")]
        others = [pid for pid in role if pid not in [process.pid for process in running]]
        hit = [rng.choice(others)] if others else []
    for pid in hit:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    wait(running)
    return f"{number.name} to {target}" if hit else "nothing, for it had ended"


def wait(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until all commands have ended.

    Raises:
        BadRoundError: one does not end.
    """
    for process in running:
        try:
            process.wait(5 * PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise BadRoundError(f"process {process.pid} does not end") from error


def wait_for_progress(
    folder: Path, num_epochs: int, running: Sequence[subprocess.Popen[bytes]]
) -> None:
    """Wait until the jobs have trained so many epochs more, or the commands have ended."""
    goal, deadline = progress(folder) + num_epochs, time.monotonic() + PATIENCE
    while progress(folder) < goal and time.monotonic() < deadline:
        if all(process.poll() is not None for process in running):
            return
        time.sleep(0.01)


def progress(folder: Path) -> int:
    """The epochs that all jobs have recorded together."""
    files = folder.glob("outputs/sweeps/s/*/metrics.csv")
    return sum(max(0, len(file.read_text().splitlines()) - 1) for file in files)


def processes(folder: Path) -> Iterator[tuple[int, bool]]:
    """The processes that work in a folder, and whether each is a further process of a run."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if (entry / "cwd").resolve() == folder.resolve() and words != [b""]:
                yield int(entry.name), b"glimpse.distributed.member" in words


def jobs_of(folder: Path) -> list[str]:
    """The names of the jobs in sweep.json that have finished, in its order."""
    content = json.loads((folder / "outputs" / "sweeps" / "s" / "sweep.json").read_text())
    return [job["folder"] for job in content["jobs"] if job["state"] == "finished"]


def require_same(disturbed: Path, expected: Path) -> None:
    """Check a round.

    Raises:
        BadRoundError: something was lost, doubled, changed or left behind.
    """
    if sorted(jobs_of(disturbed)) != sorted(jobs_of(expected)):
        raise BadRoundError(f"finished: {jobs_of(disturbed)}, expected {jobs_of(expected)}")
    found, undisturbed = (folder / "outputs" / "sweeps" / "s" for folder in (disturbed, expected))
    names = [{path.name for path in folder.iterdir()} for folder in (found, undisturbed)]
    if names[0] != names[1]:
        raise BadRoundError(f"the sweep's folder holds {names[0] ^ names[1]}")
    for name in jobs_of(expected):
        comparison = compare_bits(undisturbed / name, found / name)
        if comparison.differences:
            raise BadRoundError(f"{name}: {'; '.join(comparison.differences)}")
    left = [str(path) for path in found.rglob(".*") if path.name != ".hydra"]
    if left:
        raise BadRoundError(f"left behind: {', '.join(left)}")
    deadline = time.monotonic() + PATIENCE
    while list(processes(disturbed)):
        if time.monotonic() > deadline:
            raise BadRoundError(f"processes left: {list(processes(disturbed))}")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
