"""An error that nobody foresaw is one line, and its traceback is kept."""

import builtins
import errno
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from conftest import REPOSITORY, Execute
from glimpse.callbacks.epoch_record import EpochRecord
from glimpse.config.build import blamed, build
from glimpse.config.compose import composed, hydra_for
from glimpse.config.explain import explain
from glimpse.config.keys import check_hydra_keys, unknown_key
from glimpse.config.own_files import named_if_unreadable
from glimpse.crash import CrashError, crash
from glimpse.errors import UserError
from glimpse.models.linear import Linear

FAST = ("model=linear", "trainer=cpu", "trainer.max_epochs=1", "logger=none")


def boom(*_: Any, **__: Any) -> Any:
    raise KeyError("oops")


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (Linear, "forward"),
        (Linear, "__init__"),
        (EpochRecord, "on_train_epoch_end"),
        (EpochRecord, "__init__"),
    ],
)
def test_the_cause_of_a_crash_is_kept(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, method: str
) -> None:
    monkeypatch.setattr(owner, method, boom)
    with pytest.raises(CrashError) as error:
        execute(*FAST)
    line = str(error.value)
    kept = tmp_path / "run" / "traceback.txt"
    assert line.startswith("KeyError: 'oops'")
    assert str(kept) in line
    assert f"{Path(__file__).name}:" in line
    text = kept.read_text()
    assert text.startswith("Traceback")
    assert 'raise KeyError("oops")' in text
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", line)


def test_a_later_attempt_that_finishes_removes_the_traceback(
    execute: Execute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Linear, "forward", boom)
        with pytest.raises(CrashError):
            execute(*FAST)
    execute(*FAST)
    assert not (tmp_path / "run" / "traceback.txt").exists()


def test_a_mistake_of_the_user_leaves_no_traceback(execute: Execute, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        execute("model=convnet_template", *FAST[1:])
    assert not (tmp_path / "run" / "traceback.txt").exists()


def test_the_command_ends_with_one_line(tmp_path: Path) -> None:
    script = (
        "import runpy, sys\n"
        "import glimpse.data.sets.digits as digits\n"
        "digits.Digits.read = lambda self: [][1]\n"
        f"sys.argv[0] = {str(REPOSITORY / 'train.py')!r}\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *FAST],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "IndexError: list index out of range" in result.stderr
    [kept] = tmp_path.glob("outputs/*/*/traceback.txt")
    assert kept.name in result.stderr
    assert "in contents_of" in kept.read_text()


def test_without_a_folder_the_traceback_is_kept_elsewhere(tmp_path: Path) -> None:
    try:
        boom()
    except KeyError as error:
        found = crash(error, tmp_path / "none")
    path = Path(str(found).rpartition(" ")[2])
    assert "oops" in path.read_text()


@pytest.mark.parametrize(
    ("deletion", "message"),
    [
        ("~callbacks", "~callbacks: type callbacks=[] for none"),
        ("~metrics", "~metrics: type metrics=[] for none"),
        (
            "~callbacks.pictures=1",
            "~callbacks.pictures: type callbacks.pictures=null to turn it off",
        ),
        ("~model=linear", "~model removes nothing here: type model=<value>"),
        ("~modle", "modle is not a key of this configuration: did you mean model?"),
    ],
)
def test_a_deletion_says_what_to_type(deletion: str, message: str) -> None:
    with pytest.raises(HydraException) as error:
        composed([deletion])
    assert explain(error.value, [deletion]) == message


MEMORY = "out of memory: type a lower data.batch_size"
PROCESSES = "the system starts no more processes or threads: raise the limit that ulimit -u shows"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (MemoryError("Unable to allocate 1.83 GiB"), MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to …"), MEMORY),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), MEMORY),
        (OSError(errno.EMFILE, "Too many open files"), "too many open files: type ulimit -n 4096"),
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), PROCESSES),
        (RuntimeError("can't start new thread"), PROCESSES),
        (
            FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
            "no temporary folder can be written: type export TMPDIR=",
        ),
        (
            ImportError("libtorch_cpu.so: failed to map segment from shared object"),
            "too little memory to load torch: raise the limit that ulimit -v shows",
        ),
    ],
)
def test_a_shortage_has_a_remedy(error: Exception, remedy: str, tmp_path: Path) -> None:
    try:
        raise error
    except type(error):
        found = str(crash(error, tmp_path))
    assert found.startswith(remedy)


def test_a_path_that_is_too_long_is_shortened(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as error:
        (tmp_path / ("x" * 5000)).stat()
    found = str(crash(error.value, None))
    assert found.startswith(str(tmp_path)[:60])
    assert found.endswith("… is too long for a path: type a shorter one")


def test_what_would_reach_the_terminal_as_a_command_is_escaped() -> None:
    assert explain(UserError("a\x1b[31m\nb")) == "a\\x1b[31m\\nb"


def test_arguments_that_are_not_taken_are_told_before_anything_is_called() -> None:
    with pytest.raises(UserError, match="does not accept these arguments: got an unexpected"):
        build("loss", {"_target_": "torch.nn.MSELoss", "weights": 1})
    with pytest.raises(UserError, match="rejected its arguments: Invalid beta"):
        build("optimizer", {"_target_": "torch.optim.Adam", "betas": [2, 3]}, [Tensor([1.0])])


def test_the_argument_that_a_library_rejects_is_named() -> None:
    f1 = {"_target_": "torchmetrics.classification.MulticlassF1Score", "num_classes": 3}
    with pytest.raises(UserError, match="rejected average=macroo: Expected"):
        build("metrics", f1 | {"average": "macroo"})
    error = ValueError("invalid value 3.5 for val_check_interval, expected one in [0.0, 1.0]")
    assert blamed({"limit": 3.5, "val_check_interval": 3.5}, error) == "val_check_interval=3.5"
    assert blamed({"limit": 3.5, "other": 3.5}, ValueError("invalid: 3.5")) == "its arguments"


def test_a_function_is_built_only_if_it_returns_what_its_group_wants() -> None:
    with pytest.raises(UserError, match=r"_target_=.*: expected a "):
        build("data", {"_target_": "glimpse.data.download.fetch"})


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model = mlp", "model = mlp: spaces around =; type model=mlp"),
        ("model =mlp", "model =mlp: spaces around =; type model=mlp"),
        ("model= mlp", "model= mlp: a space after =; type model=mlp"),
        ("model:mlp", "model:mlp: expected key=value; type model=mlp"),
        ("mlp", "mlp: expected key=value; did you mean model=mlp?"),
        ("ema", "ema: expected key=value; did you mean callbacks=[ema]?"),
        ("optimizer", "optimizer: expected key=value, such as optimizer=adam"),
        ("train.yaml", "train.yaml: expected key=value, such as model=mlp or trainer.max_epochs=3"),
        ("model.widths=[2, 3]", 'type it in quotes: "model.widths=[2, 3]"'),
        ("lr=tag(log, interval(1,2))", 'type it in quotes: "lr=tag(log, interval(1,2))"'),
        ("model=linear,mlp", "several values for one run: type -m to sweep over the values"),
        ("data.folds=2,3", "several values for one run: type -m to sweep over the values"),
        ("trainer.devices=0,1", "type trainer.devices=[0,1] for a list, or -m to sweep over the"),
        ("data.classes=a,b", "type data.classes=[a,b] for a list, or -m to sweep over the values"),
        (
            "augment=flip,mixup",
            "type augment=[flip,mixup] for a list, or -m to sweep over the values",
        ),
        (
            "data=my/photos",
            "expected a name, found a path: type data=image_folder data.root=my/photos",
        ),
        ("data=CIFAR-10/", "expected a name, found a path: type data=image_folder"),
        ("data=a.csv", "expected a name, found a path: type data=csv data.train=a.csv"),
        ("model=mine.yaml", "expected a name, found a path: type model=mine"),
        ("model=net.pth", "type model=<its name> model.weights=net.pth"),
        ("num_epochs=3", "did you mean trainer.max_epochs?"),
        ("trainer.epochs=3", "did you mean trainer.max_epochs?"),
        ("batch_size=3", "did you mean data.batch_size?"),
        ("optimizer.learning_rate=1", "did you mean optimizer.lr?"),
        ("device=cuda", "did you mean trainer=gpu or trainer=cpu?"),
        ("trainer=cuda", "did you mean gpu?"),
        ("data.img_size=3", "did you mean data.presize=64, or data.size=64"),
        ("loss=ce", "did you mean cross_entropy?"),
        ("scheduler=none", "did you mean constant?"),
        ("scheduler.max_lr=1", "did you mean optimizer.lr?"),
        ("optimizer=AdamW", "did you mean adamw?"),
        ("data=MNIST", "did you mean mnist?"),
        ("Optimizer.LR=3", "did you mean optimizer.lr?"),
        ("model=resnet50", "type model=pretrained model.architecture=resnet50"),
        ("model=EfficientNet_B0", "type model=pretrained model.architecture=efficientnet_b0"),
        ("callbacks=none", "callbacks=none: expected a list of names: type callbacks=[] for none"),
        ("datamodule=mnist", "did you mean data?"),
        ("root=photos", "did you mean data=image_folder data.root=<your images>, or data_dir"),
        ("data.seed=3", "did you mean data.split_seed for the splits, or seed"),
        ("model.lr=1", "did you mean optimizer.lr?"),
        ("train.epochs=1", "did you mean trainer.max_epochs?"),
        ("trainer.default_root_dir=x", "did you mean output_dir?"),
        ("trainer.plugins=[]", "the run itself decides this: leave it out"),
        ("verbose=3", "type python train.py --cfg job to list the keys"),
        ("pretrained=true", "did you mean model=pretrained?"),
        ("metrics=[acc]", "metrics=acc: accuracy is always measured, as val/acc"),
        ("data=image_folder data.num_classes=3", "data.classes=[…] keeps some of them"),
        ("data=csv model.num_classes=3", "did you mean data.num_classes?"),
        ("data.root=photos", "data.root is a key of image_folder, which is not the dataset here"),
        ("callbacks.ema.decay=0.9", "type callbacks=[ema] too"),
        ("hydra.launcher.njobs=2", "did you mean hydra.launcher.n_jobs?"),
        ("hydra.launcher.n_jobs=two", "hydra.launcher.n_jobs=two: expected a whole number"),
        ("hydra.jbo.num=1", "did you mean hydra.job.num?"),
        ("hydra.sweeper.n_trails=5 hydra/sweeper=search", "did you mean hydra.sweeper.n_trials?"),
        ("hydra/sweeper=search hydra.launcher.njobs=2", "did you mean hydra.launcher.n_jobs?"),
        ("hydra/sweeper=search hydra.sweeper.n_trials=x", "n_trials=x: expected a whole number"),
        ("seed=choice(0,null)", "choice() does not take null: type seed=0,null"),
        ("seed=choice()", "empty choice is not legal: type seed=choice(a,b,…)"),
        ("seed=range(1,2,3,4)", "too many positional arguments: type seed=range(start,stop,step)"),
        (
            "optimizer.lr=loguniform(1,2)",
            "for a logarithmic range, type 'optimizer.lr=tag(log,interval(1,2))'",
        ),
        (
            "optimizer.lr=uniform(1,2)",
            "Hydra has no such function; it has choice(a,b,…), range(",
        ),
        ("data.presize=(64,64)", "a list is written in brackets: type 'data.presize=[64,64]'"),
        ("optimizer.lr=0.1,0.2,", "a comma at the end: type optimizer.lr=0.1,0.2"),
        ("model.widths=[1,2", 'a bracket is not closed; for text, type "model.widths='),
        (
            "hydra.sweeper.n_trials=5",
            "a key of search, which is not the sweeper here: type hydra/sweeper=search too",
        ),
    ],
)
def test_what_a_beginner_types_is_answered_with_what_to_type(typed: str, message: str) -> None:
    words = typed.split(" ")
    with pytest.raises((HydraException, OmegaConfBaseException)) as error:
        composed(words)
    found = explain(error.value, words)
    assert message in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "model=mlp trainer.max_epochs=2",
            'type model=mlp trainer.max_epochs=2, each by itself (in Python, train("model=mlp", "tr',
        ),
        ("data=My Photos (2024)", 'type data=image_folder "data.root=My Photos (2024)"'),
        ("data=a/(b)", "type data=image_folder 'data.root=a/(b)'"),
        ("+optimizer.lr=1", "type optimizer.lr=<value>, without +"),
        ("+model=mlp", "type model=mlp, without +"),
        ("++model=mlp", "type model=mlp, without +"),
        ("callbacks+=ema", "type callbacks=[ema]"),
        ("callbacks+=[ema]", "type callbacks=[ema]"),
        ("model+=mlp", "type model=mlp"),
    ],
)
def test_a_word_that_hydra_cannot_read_is_answered(word: str, message: str) -> None:
    with pytest.raises(HydraException) as error:
        composed([word])
    assert message in explain(error.value, [word])


@pytest.mark.parametrize(
    ("launcher", "key", "hint"),
    [
        ("submitit_local", "timeoutmin", "timeout_min"),
        ("submitit_slurm", "partitoin", "partition"),
        ("ray", "ray.init.num_cpu", "ray.init.num_cpus"),
        ("basic", "n_job", None),
    ],
)
def test_the_chosen_launchers_own_keys_are_known(launcher: str, key: str, hint: str | None) -> None:
    if launcher != "basic":
        pytest.importorskip(f"hydra_plugins.hydra_{launcher.partition('_')[0]}_launcher")
    for words in (
        [f"hydra/launcher={launcher}", f"hydra.launcher.{key}=5"],
        [f"hydra.launcher.{key}=5", "hydra/sweeper=search", f"hydra/launcher={launcher}"],
    ):
        with pytest.raises((HydraException, OmegaConfBaseException)) as error:
            composed(words)
        found = explain(error.value, words)
        assert f"hydra.launcher.{key} is not a key of this configuration" in found
        if hint:
            assert found.endswith(f"did you mean hydra.launcher.{hint}?")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("+hydra.launcher.njobs=1", "did you mean hydra.launcher.n_jobs?"),
        ("+hydra.sweeper.n_trials=5", "a key of search, which is not the sweeper here"),
        ("+hydra.job.nam=x", "did you mean hydra.job.name?"),
        ("+hydra.zzzzzz=1", "type python train.py --cfg hydra to list the keys"),
        (
            "hydra/launcher=submitit_local +hydra.launcher.nodez=1",
            "did you mean hydra.launcher.nodes?",
        ),
    ],
)
def test_a_key_added_to_hydras_own_part_is_named(typed: str, message: str) -> None:
    if "submitit" in typed:
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    with hydra_for(None):
        config = compose("train", overrides=typed.split(" "), return_hydra_config=True)
        with pytest.raises(UserError, match="^hydra.*" + re.escape(message)):
            check_hydra_keys(config.hydra)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- _target_: a.B", "model/mine.yaml: expected lines of key: value, found a list"),
        (
            "defaults: [other]\n_target_: a.B",
            "model/mine.yaml, in defaults: model=other: there is no",
        ),
        (
            "_target_: a.B\nwidth: ${nowhere.x}",
            "model.width: Interpolation key 'nowhere.x' not found",
        ),
        ("_target_: a.B\nwidth: ${nowhere", "expected a key in braces, such as ${optimizer.lr}"),
        ("_target_:a.B", "its file has no _target_, expected the name of a torch.nn.Module"),
        ("_target_: caf\udce9", "mine.yaml: expected text in UTF-8, found other bytes"),
    ],
)
def test_a_mistake_in_a_file_of_the_user_names_the_file(
    tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "model" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises((HydraException, OmegaConfBaseException, UserError)) as error:
        composed(["model=mine"], config_dir=tmp_path)
    found = explain(error.value, ["--config-dir", str(tmp_path), "model=mine"])
    assert message in found
    assert "\n" not in found


def test_a_choice_in_conf_is_found_by_config_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mine.yaml").write_text("_target_: a.B")
    monkeypatch.chdir(tmp_path)
    for typed in (["model=mine"], ["resume=run", "model=mine"]):
        with pytest.raises(HydraException) as error:
            composed(typed)
        found = explain(error.value, typed)
        assert found.startswith("model=mine: conf/model/mine.yaml is here: add --config-dir conf")


def test_a_key_that_the_users_own_file_lacks_may_be_added_to_it(tmp_path: Path) -> None:
    file = tmp_path / "model" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("_target_: a.B\nwidth: 8")
    (tmp_path / "project.yaml").write_text("defaults: [train, {override model: mine}]")
    at = ["--config-dir", str(tmp_path)]
    known = ["model._target_", "model.width", "model.weights"]
    for words in ([*at, "model=mine"], [*at, "--config-name", "project"]):
        assert unknown_key("model.depth", known, words) == (
            f"model.depth: mine has no key depth: add depth: <value> to {file}"
        )
        found = unknown_key("model.widht", known, words)
        assert found.endswith("or did you mean model.width?")


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model.widht=3", "did you mean model.widths?"),
        ("data.num_image=3", "did you mean data.num_images?"),
    ],
)
def test_the_keys_of_a_project_are_those_of_its_root(
    tmp_path: Path, typed: str, message: str
) -> None:
    for path, content in {
        "model/net.yaml": "_target_: a.B\nwidths: [8]",
        "data/stripes.yaml": "defaults: [_common]\n_target_: a.C\nnum_images: 9",
        "project.yaml": "defaults: [train, {override data: stripes}, {override model: net}, _self_]",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
    words = ["--config-dir", str(tmp_path), "--config-name", "project", typed]
    with hydra_for(tmp_path), pytest.raises(HydraException) as error:
        compose("project", overrides=[typed])
    assert message in explain(error.value, words)


def test_a_fraction_for_a_whole_default_names_the_users_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("_target_: torch.nn.Dropout\np: 0")
    words = ["--config-dir", str(tmp_path), "model=mine", "model.p=0.5"]
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    overrides = [*words[2:], f"hydra.searchpath=[file://{tmp_path}]"]
    with pytest.raises(UserError) as error:
        composed(overrides)
    assert str(error.value) == (
        "model.p=0.5: expected a whole number, such as model.p=0; if it may have a fraction, write "
        f"p: 0.0 in {file}"
    )


def test_a_name_that_is_a_number_is_told_from_the_other_choices(tmp_path: Path) -> None:
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "inf.yaml").write_text("_target_: torch.nn.CrossEntropyLoss")
    typed = ["trainer=cpu", "loss=inf"]
    with pytest.raises((HydraException, ValueError)) as error:
        composed(typed, config_dir=tmp_path)
    found = explain(error.value, ["--config-dir", str(tmp_path), *typed])
    assert found == "loss=inf: YAML reads inf as a number; rename loss/inf.yaml"


def test_a_file_with_another_ending_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yml").write_text("_target_: a.B")
    with pytest.raises(HydraException) as error:
        composed(["model=mine"], config_dir=tmp_path)
    typed = ["--config-dir", str(tmp_path), "model=mine"]
    assert "mine.yml ends in .yml, expected .yaml: rename it" in explain(error.value, typed)


def test_a_file_that_may_not_be_read_is_not_called_one_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model" / "mine.yaml"
    file.parent.mkdir()
    file.write_text("_target_: a.B")
    before = builtins.open

    def denied(path: Any, *args: Any, **kwargs: Any) -> Any:
        if path == str(file):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return before(path, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", denied)
    with pytest.raises(UserError, match=r"cannot read .*mine\.yaml: .*; type chmod u\+rX /"):
        composed(["model=mine"], config_dir=tmp_path)
    written = OSError(
        errno.EACCES, "Permission denied", str(tmp_path / "out" / ".hydra" / "config.yaml")
    )
    with pytest.raises(OSError, match="Permission"), named_if_unreadable([tmp_path]):
        raise written
