"""Networks, data, losses and the rest from a package of the user's own, without touching glimpse."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from conftest import TRAIN, slow
from folders import read_rows
from glimpse import load, scripting
from glimpse.assembly import build_loss
from glimpse.config.build import build, require_target
from glimpse.config.compose import composed
from glimpse.config.explain import explain
from glimpse.config.trust import recorded_overrides
from glimpse.crash import CrashError
from glimpse.data.spec import ImageSpec
from glimpse.errors import UserError
from glimpse.network import build_network
from glimpse.runs.trained import TrainedRun
from own_package import write_package
from preloaded import Preloaded

QUICK = (
    "trainer=cpu", "trainer.max_epochs=1", "logger=none", "callbacks.pictures=null", "test=false",
)  # fmt: skip
TWO = ImageSpec(2, ("a", "b"), 3, 12, 12, (0.0,) * 3, (1.0,) * 3)
Train = Callable[..., Path]


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("own"))


@pytest.fixture
def importable(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(package))
    return package


@pytest.fixture
def train(importable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Train in the package's folder with its conf/; returns the run folder."""
    monkeypatch.chdir(importable)
    number = iter(range(100))

    def train(*overrides: str) -> Path:
        place = (f"output_dir={tmp_path / str(next(number))}", f"data_dir={tmp_path / 'data'}")
        experiment = any(word.startswith("experiment=") for word in overrides)
        quick = [word for word in QUICK if not (experiment and "max_epochs" in word)]
        with scripting.process_unchanged():
            return scripting.run([*quick, *place, *overrides], config_dir="conf")[1]

    return train


@pytest.mark.parametrize(
    "overrides",
    [
        ("data=photos", "model=net"),
        ("data=halves", "model=plain"),
        ("data=photos", "model=function"),
        ("data=photos", "model=anything"),
        ("data=photos", "model=keyword"),
        ("data=photos", "model=other_name"),
        ("data=photos", "model=in_place"),
        ("data=photos", "model=random"),
        ("data=photos", "model=fourier"),
        ("data=photos", "model='my net'"),
        ("data=halves", "model=linear", "loss=margin"),
        ("data=halves", "model=linear", "loss=optional", "loss.class_weights=[1,3]"),
        ("data=halves", "model=linear", "optimizer=sign", "scheduler=constant"),
        ("data=halves", "model=linear", "optimizer=rmsprop", "scheduler=annealing"),
        ("data=halves", "model=linear", "scheduler=shrink"),
        ("data=halves", "model=linear", "loss=weighted", "augment=[crop_flip,cutmix]"),
    ],
    ids=lambda overrides: "-".join(overrides),
)
def test_own_parts_train(train: Train, overrides: tuple[str, ...]) -> None:
    assert (train(*overrides) / "checkpoints" / "best.ckpt").is_file()


def test_flat_and_named_callbacks_stand_side_by_side(train: Train) -> None:
    folder = train(
        "data=halves", "model=linear", "callbacks=[topk,count,note]", "callbacks.note.word=bye",
        "trainer.max_epochs=2",
    )  # fmt: skip
    assert (folder / "epochs.txt").read_text() == "2"
    assert (folder / "note.txt").read_text() == "bye"
    names = {path.name for path in (folder / "checkpoints").glob("*.ckpt")}
    assert names == {"best.ckpt", "last.ckpt", "epoch0.ckpt", "epoch1.ckpt"}


def test_a_callback_must_not_log_what_every_run_measures(train: Train) -> None:
    with pytest.raises(UserError, match=r"logs val/acc, .* such as mine/acc"):
        train("data=halves", "model=linear", "callbacks=[logs_ours]")


def test_a_method_that_only_resembles_a_hook_is_remarked_on(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train("data=halves", "model=linear", "callbacks=[old_hook,logs]", "check=true")
    said = " ".join(capsys.readouterr().out.split())
    assert "OldHook.on_epoch_end is not a hook of Lightning" in said
    assert "did you mean on_train_epoch_end?" in said
    assert said.count("is not a hook") == 1


def test_views_are_those_of_the_image_though_a_network_works_in_place(train: Train) -> None:
    found = []
    for model in ("in_place", "out_of_place"):
        options = ("data=photos", f"model={model}", "data.val_fraction=0.2", "test=true")
        folder = train(*options, "tta=flip")
        found.append(json.loads((folder / "summary.json").read_text())["metrics"])
    assert found[0]["test/loss_flip"] == found[1]["test/loss_flip"]


def test_complex_weights_are_averaged(train: Train) -> None:
    folder = train("data=photos", "model=fourier", "callbacks=[ema]")
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    name = "network.weight"
    assert not torch.equal(saved["state_dict"][name], saved["training_weights"][name])


def test_a_rate_that_schedules_change_in_place_is_recorded_as_it_was(train: Train) -> None:
    rates = [
        read_rows(train("data=halves", "model=linear", f"optimizer={name}"))[0]["lr"]
        for name in ("tensor_rate", "without_momentum")
    ]
    assert float(rates[0]) == pytest.approx(float(rates[1]))


@pytest.mark.parametrize(
    ("model", "remark"),
    [
        ("always_drops", "gives other outputs for the same images each time, even in evaluation"),
        (
            "mixes_images",
            "gives other outputs for an image beside other images, even in evaluation",
        ),
        ("keeps_norm", "1 of the 7 modules of KeepsNorm stay in evaluation mode in training"),
        ("plain", None),
    ],
)
def test_a_network_that_is_not_steady_in_evaluation_is_remarked_on(
    train: Train, model: str, remark: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    train("data=photos", f"model={model}")
    said = " ".join(capsys.readouterr().out.split())
    assert remark in said if remark else "evaluation mode" not in said


def test_what_callbacks_log_is_in_the_rows_of_the_epochs_that_logged_it(train: Train) -> None:
    folder = train(
        "data=halves", "model=linear", "callbacks=[logs]", "trainer.max_epochs=4",
        "trainer.check_val_every_n_epoch=2",
    )  # fmt: skip
    rows = read_rows(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["weights/norm"] for row in rows] == ["10.0", "11.0", "12.0", "13.0"]
    assert [row["rare"] for row in rows] == ["1.5", "", "1.5", "1.5"]
    assert [row["val/mine"] for row in rows] == ["", "1.0", "", "3.0"]
    assert list(rows[0])[-3:] == ["lr", "images_per_second", "seconds"]


def test_an_experiment_of_their_own_chooses_from_every_group(train: Train) -> None:
    folder = train("experiment=mine")
    config = OmegaConf.load(folder / ".hydra" / "config.yaml")
    assert config.model._target_ == "ownpkg.nets.Net"
    assert (folder / "epochs.txt").read_text() == "2"


def test_a_search_path_is_as_good_as_a_config_dir(
    importable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(importable)
    words = ("data=halves", "model=net", f"hydra.searchpath=['file://{importable / 'conf'}']")
    with scripting.process_unchanged():
        scripting.run([*QUICK, *words, "callbacks=count"], folder=tmp_path / "run")
    assert (tmp_path / "run" / "epochs.txt").read_text() == "1"


def test_an_own_file_replaces_ours_of_the_same_name(
    importable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "model").mkdir(parents=True)
    (tmp_path / "one" / "model" / "mlp.yaml").write_text("_target_: ownpkg.nets.Net\nwidth: 5\n")
    (tmp_path / "two" / "model" / "linear.yaml").write_text("_target_: ownpkg.nets.Net\nwidth: 6\n")
    search = f"hydra.searchpath=['file://{tmp_path / 'two'}']"
    for model, width in (("mlp", 5), ("linear", 6)):
        config = composed([f"model={model}", search], config_dir=tmp_path / "one")
        assert config.model == {"_target_": "ownpkg.nets.Net", "width": width, "weights": None}
    assert "widths" in composed(["model=mlp"]).model
    printed = subprocess.run(
        [sys.executable, TRAIN, "--config-dir", "one", "model=mlp", "--cfg", "job"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "_target_: ownpkg.nets.Net\n  width: 5" in printed.stdout


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=wrong", "expected a torch.nn.Module"),
        ("model=unknown", "or a function whose return annotation is one"),
        ("model=neither", "takes neither a spec nor num_classes"),
        ("model=five", "returns 1×5 for one image of 3×12×12, expected logits of 1×2"),
        ("model=absent", "ownpkg.nets has no Nett: did you mean Net?"),
        ("model=elsewhere", "there is no package nopkg; type PYTHONPATH="),
        ("loss=each", "returns 2 for two images, expected one number"),
        ("model=nett", "did you mean net?"),
        ("model.widht=3", "did you mean model.width"),
        ("model=frozen", "has no parameters to train"),
        ("model=without_grad", "returns logits without a gradient: remove detach()"),
        ("model=extra_state", "a state_dict of more than tensors, which checkpoints cannot hold"),
        ("model=program", "it is a program that exits (usage: program FILE)"),
        ("model=standard", "statistics is a module of Python itself, give yours another name"),
        ("model=shallow", "ownpkg has no Net; its modules are data, needs, nets, program, rest …"),
        ("model=other_name model.n_classes=3", "takes neither a spec nor num_classes"),
        ("model=auxiliary", "returns a tuple in training, expected logits alone"),
        ("model=listed", "has weights that its state_dict lacks"),
        ("model=projected", "has weights that its state_dict lacks"),
        ("model=late", "creates or resizes late.weight in training"),
        ("model=one_more", "returns 2×3 for two images in training, expected logits of 2×2"),
        ("model=weighted", "model.weights is read by the run itself"),
        ("model=scripted", "is compiled by torch.jit, whose layers cannot be looked at"),
        ("model=forgets", "returned nothing, expected a torch.nn.Module: return it"),
        ("model=plain model.weights=default", "only model=pretrained has default weights"),
        (
            "scheduler=lost",
            "its monitor val/nope is not a metric of this run, expected one of val/loss",
        ),
        ("scheduler=by_step", "ReduceLROnPlateau steps after each validation; remove it"),
        (
            "callbacks=[topk] callbacks.topk.filename=best",
            "filename: best is the name of the run's own checkpoint: write another",
        ),
        (
            "callbacks=[topk] callbacks.topk.save_last=true",
            "would replace last.ckpt, which the run",
        ),
        ("callbacks=[finder]", "BatchSizeFinder replaces settings of the run while it trains"),
        ("callbacks=[swa]", "StochasticWeightAveraging does not work here: type callbacks=[ema]"),
        ("loss=unlinked", "returns a number without a gradient"),
        ("loss=one_element", "returns 1 for two images, expected one number"),
        ("model=pair", "returns a tuple for one image of 3×12×12, expected logits of 1×2"),
        (
            "model=fixed_size",
            "takes images of 3×32×32 but not of 3×12×12: it needs images of another size; type data.size=32",
        ),
        ("model=grey_only", "takes images of 1×12×12 but not of 3×12×12: it needs grey images"),
        ("model=syntax", "slip.py, line 1: invalid syntax"),
        ("model=package", "there is no package ownpgk: did you mean ownpkg?"),
        ("model=module", "there is no module ownpkg.net: did you mean ownpkg.nets?"),
        ("model=inner", "there is no package inner; type PYTHONPATH=src before the command"),
        (
            "model=nameless",
            "model=nameless: its file has no _target_, expected the name of a",
        ),
        ("model=empty", "model=empty: its file has no _target_, expected the name of a"),
        ("model=yaml", "conf/model/yaml.yaml, line 2: mapping values are not allowed here"),
        ("loss=detached", "returns a number without a gradient"),
        ("loss=learns", "has parameters, which no optimizer trains"),
        ("loss=listed", "annotate the argument of __init__ as torch.Tensor"),
        ("loss=sum", "adds up the losses of images, expected their mean: type reduction: mean"),
        ("data=alone", "its __init__ does not call that of ImageDataModule"),
        (
            "data=lightning",
            "found a LightningDataModule: derive it from ImageDataModule, return images",
        ),
        (
            "model=deeper",
            "unexpected keyword argument 'depth'; it also takes width: correct its YAML",
        ),
        (
            "model=needs",
            "ownpkg.needs cannot be imported: No module named 'nowhere'; type pip install",
        ),
        ("model=without_forward", "has no forward: write def forward(self, images), which"),
        ("model=needs_labels", "its forward(images, labels) cannot be called with images alone"),
        ("model=complex_output", "returns complex numbers, expected real logits: return their abs"),
        (
            "model=own_state_dict",
            "has weights that its state_dict lacks, so checkpoints would lose",
        ),
        ("loss=changes_labels", "changes the labels that it is given, which the accuracy needs"),
        ("loss=complex_loss", "returns a complex number, expected a real one"),
        ("metrics=[changes_target]", "changes the probabilities or labels that it is given, which"),
        ("optimizer=without_closure", "its step takes no closure, which computes the gradients"),
        ("optimizer=without_rate", "its parameter groups have no lr, which schedules change"),
        (
            "callbacks=[one_argument_hook]",
            "OneArgumentHook.on_train_epoch_end does not take the arguments that Lightning passes: write "
            "def on_train_epoch_end(self, trainer, pl_module)",
        ),
        ("loss=one_argument", "3 were given: expected forward(self, logits, labels)"),
        ("loss=function", "a function of logits and labels belongs in the forward of a module"),
        ("data=bare", "its file lacks the keys of every dataset; write defaults: [_common]"),
        ("callbacks=[rate]", "trainer: Cannot use `LearningRateMonitor` callback"),
        (
            "metrics=[both]",
            "metrics.both gives (2,) numbers, expected one number: its compute must",
        ),
        (
            "experiment=lost",
            "write # @package _global_ as its first line",
        ),
        ("callbacks=[count,cuont]", "did you mean count"),
        ("model._target_=torch.hub.load", "expected a torch.nn.Module"),
        ("model._target_=torch.load", "expected a torch.nn.Module"),
        ("model._target_=os.system", "expected a torch.nn.Module"),
        ("optimizer._target_=torch.nn.Linear", "expected a torch.optim.Optimizer"),
    ],
)
def test_what_cannot_be_built_is_named_before_it_is_called(
    train: Train, override: str, message: str
) -> None:
    model = () if override.startswith("model=") else ("model=net",)
    data = () if override.startswith("data=") else ("data=photos",)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        train(*data, *model, *override.split())
    assert "\n" not in str(error.value)
    assert not Path("CALLED").exists()


def test_an_error_within_a_loss_keeps_its_traceback(train: Train) -> None:
    with pytest.raises(CrashError, match=r"TypeError: .*while loss .*rest\.py:\d+; ") as error:
        train("data=photos", "model=net", "loss=faulty")
    trace = Path(str(error.value).rpartition("the full traceback is in ")[2])
    assert "return value * None" in trace.read_text()


def test_a_network_that_ends_the_process_fails_the_run(train: Train) -> None:
    with pytest.raises(CrashError, match=r"sys\.exit\(0\) was called, .*nets\.py:"):
        train("data=photos", "model=exits")


def test_an_error_that_is_no_exception_fails_the_run(train: Train) -> None:
    with pytest.raises(CrashError, match=r"CancelledError: .*nets\.py:"):
        train("data=photos", "model=cancelled")


def test_a_network_that_ends_in_softmax_is_remarked_on(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train("data=photos", "model=softmax")
    said = capsys.readouterr().out
    assert "Softmax returns probabilities, where losses and metrics expect logits" in said


@pytest.mark.parametrize(
    ("model", "precision", "is_remarked_on"),
    [
        ("heated", "auto", True),
        ("plain", "auto", False),
        ("wide", "32-true", False),
        ("wide", "bf16-true", False),
    ],
)
def test_what_training_changes_in_a_network_outside_its_state_is_remarked_on(
    model: str,
    precision: str,
    is_remarked_on: bool,
    train: Train,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train("data=photos", f"model={model}", f"trainer.precision={precision}", "data.presize=16")
    said = capsys.readouterr().out
    assert (" gives other outputs once its checkpoint is loaded" in said) is is_remarked_on


def test_a_suggested_rate_is_written_where_it_has_no_key(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train("data=photos", "model=linear", "optimizer=bare", "task=lr_find", "lr_find.num_steps=20")
    said = capsys.readouterr().out
    assert re.search(r"^to train with it, add lr: \S+ to the optimizer's YAML file$", said, re.M)


def test_a_batch_that_an_optimizer_evaluates_several_times_counts_once(
    train: Train, importable: Path
) -> None:
    folder = train("data=photos", "model=linear", "optimizer=lbfgs")
    row = read_rows(folder)[0]
    num_all = len(list((importable / "photos").rglob("*.png")))
    assert float(row["images_per_second"]) * float(row["seconds"]) < 2 * num_all


def test_a_run_of_lbfgs_predicts_in_the_layout_of_its_training(train: Train) -> None:
    options = ("data.size=32", "model=convnet", "model.widths=[16,32]", "optimizer=lbfgs")
    folder = train("data=photos", *options, "trainer.limit_train_batches=1")
    assert TrainedRun(folder, trust=["ownpkg"]).memory_format is torch.contiguous_format
    by_adamw = train("data=photos", *options, "optimizer=adamw", "trainer.limit_train_batches=1")
    assert TrainedRun(by_adamw, trust=["ownpkg"]).memory_format is torch.channels_last


@pytest.mark.parametrize("check", ["true", "false"])
def test_an_optimizer_that_ignores_its_closure_is_named(train: Train, check: str) -> None:
    with pytest.raises(UserError, match=r"ownpkg\.rest\.Deaf: its step does not call the closure"):
        train("data=photos", "model=linear", "optimizer=deaf", f"check={check}")


def test_a_loss_that_expects_log_probabilities_is_remarked_on(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train("data=photos", "model=net", "loss=log_probabilities", "check=true")
    assert "NLLLoss expects log-probabilities, but the network returns" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("logger=wrong", "unexpected keyword argument 'flush_every'; it also takes"),
        ("scheduler=by_step", "ReduceLROnPlateau steps after each validation; remove it"),
    ],
)
def test_a_check_refuses_what_a_run_would(train: Train, override: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        train("data=photos", "model=net", override, "check=true")


def test_a_net_that_needs_squares_says_so(train: Train) -> None:
    said = r"takes images of 3×12×12 but not of 3×12×18: it needs square images; type data\.size=12"
    with pytest.raises(UserError, match=said):
        train("data=photos", "model=square", "data.presize=[12,18]")
    train("data=photos", "model=square", "data.presize=[12,18]", "data.size=12")


def test_only_the_forward_of_a_lightning_module_is_used_and_that_is_said(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    train("data=photos", "model=lit")
    assert "Lit is a LightningModule: only its forward is used" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("channels first", "the train images are 60×1×8×8 of uint8, expected N×H×W×C of uint8"),
        ("floats", "the train images are 60×8×8×1 of float32, expected N×H×W×C of uint8"),
        ("flat", "the train images are 60×64 of uint8, expected N×H×W×C of uint8"),
        ("short", "there are 60 train images but 59 labels"),
        ("words", "the labels of the train images are of <U1, expected whole numbers"),
        ("tensor", "the train images are a Tensor, expected a NumPy array"),
        ("listed", "the labels of the train images are a list, expected a NumPy array"),
        (
            "one hot",
            "the labels of the train images are 60×2, expected N, one index for each image",
        ),
        ("numbered", "the class name 0 is of type int, expected text"),
        ("list", "read() returned a list, expected a Source"),
    ],
)
def test_a_dataset_that_gives_something_else_is_told_so(
    train: Train, kind: str, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        train("data=halves", "model=linear", f"data.kind={kind}")


def test_a_run_is_resumed_with_the_folder_that_it_was_started_with(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train("data=halves", "model=net")
    with pytest.raises(UserError, match="yaml is here: add --config-dir conf"):
        scripting.run([f"resume={folder}"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"model=net, with which .*type --config-dir <the folder of"
    ):
        scripting.run([f"resume={folder}"])


def test_loss_weights_must_fit_the_classes() -> None:
    node = OmegaConf.create({"_target_": "torch.nn.CrossEntropyLoss", "weight": [1, 2, 3]})
    with pytest.raises(UserError, match="does not take logits of 2×2 and labels"):
        build_loss(node, TWO, mixes=False)
    node.weight = [1, 3]
    assert build_loss(node, TWO, mixes=True).weight.tolist() == [1.0, 3.0]  # type: ignore[union-attr]
    hinge = OmegaConf.create({"_target_": "torch.nn.MultiMarginLoss"})
    with pytest.raises(UserError, match="the augmentation mixes labels: type augment=none"):
        build_loss(hinge, TWO, mixes=True)


def test_a_library_s_network_for_another_number_of_channels() -> None:
    grey = ImageSpec(3, tuple("abc"), 1, 32, 32, (0.0,), (1.0,))
    network = build_network({"_target_": "timm.create_model", "model_name": "test_resnet"}, grey)
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
    with pytest.raises(UserError, match=r"type model=pretrained model\.architecture=resnet18"):
        build_network({"_target_": "torchvision.models.resnet18", "weights": None}, grey)


def test_a_module_that_an_installed_package_hides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pooch.py").write_text("class Net: pass\n")
    for target in ("pooch.Net", "pooch.nets.Net"):
        with pytest.raises(UserError, match=r"Python finds pooch in .* before yours in .*; rename"):
            build_network({"_target_": target}, TWO)


def test_batch_norm_says_that_it_needs_two_images() -> None:
    with pytest.raises(ValueError, match="Expected more than 1") as error:
        torch.nn.BatchNorm1d(3)(torch.zeros(1, 3))
    for _ in range(2):  # the process that failed says it, and the one that started it
        assert explain(error.value).count("type data.batch_size=2 or more") == 1


@pytest.mark.parametrize(
    ("layers", "remedy"),
    [
        (
            [nn.Flatten(), nn.Linear(432, 128)],
            "returns 1×128 .*its last layer needs num_classes outputs",
        ),
        ([nn.Conv2d(3, 2, 12)], r"returns 1×2×1×1 .*flatten them, with output\.flatten\(1\)"),
        ([nn.Conv2d(3, 8, 12)], "end with a linear layer of num_classes outputs"),
    ],
)
def test_a_network_with_another_output_is_told_what_to_change(
    layers: list[nn.Module], remedy: str, monkeypatch: pytest.MonkeyPatch, importable: Path
) -> None:
    def make(num_classes: int) -> nn.Module:
        return nn.Sequential(*layers)

    monkeypatch.setattr(importlib.import_module("ownpkg.nets"), "make", make)
    with pytest.raises(UserError, match=remedy):
        build_network({"_target_": "ownpkg.nets.make"}, TWO)


def test_an_argument_that_the_yaml_file_lacks_is_named() -> None:
    message = (
        "optimizer torch.optim.Adam needs the argument params: add params: <value> to its YAML"
    )
    with pytest.raises(UserError, match=message):
        build("optimizer", {"_target_": "torch.optim.Adam"})


def test_a_network_of_a_library_is_told_the_class_count() -> None:
    node = {"_target_": "torchvision.models.shufflenet_v2_x0_5", "weights": None}
    network = build_network(node, ImageSpec(3, tuple("abc"), 3, 32, 32, (0.0,) * 3, (1.0,) * 3))
    assert network.fc.out_features == 3  # type: ignore[union-attr]


def test_a_checkpoint_names_only_trusted_packages(train: Train) -> None:
    folder = train("data=halves", "model=net")
    with pytest.raises(UserError, match=r"--trust ownpkg, or export GLIMPSE_TRUST=ownpkg"):
        TrainedRun(folder)
    with pytest.raises(UserError, match=r'needs ownpkg\..*type load\(…, trust=\["ownpkg"\]\)'):
        load(folder)
    assert load(folder, trust=["ownpkg"]).predict("val").correct.size
    with pytest.raises(UserError, match="needs ownpkg"):
        load(folder, trust=["own", "ownpk"])


def test_a_function_of_a_library_is_not_called_for_a_checkpoint(
    train: Train, tmp_path: Path
) -> None:
    checkpoint = train("data=halves", "model=linear") / "checkpoints" / "best.ckpt"
    saved = torch.load(checkpoint, weights_only=True)
    saved["glimpse"]["config"]["model"] = {"_target_": "torchvision.models.resnet18"}
    torch.save(saved, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="is a function, and a checkpoint may name only functions"):
        load(tmp_path / "other.ckpt", trust=["ownpkg"])


@pytest.mark.parametrize(
    ("line", "packages", "message"),
    [
        ("model._target_=ownpkg.nets.Net", (), r"type packages=\[ownpkg\]"),
        ("model._target_=ownpkg.nets.Net", ("ownpkg",), None),
        ("+callbacks.x={_target_:ownpkg.rest.Count}", (), "needs ownpkg.rest.Count"),
        ("+callbacks.x={_target_:lightning.pytorch.callbacks.Timer}", (), None),
        ("model._target_=${name}", (), "may name only"),
        ("model=../../elsewhere", (), "a choice is a name"),
        ("callbacks=[ema,/elsewhere]", (), "a choice is a name"),
        ("data.root=../elsewhere", (), None),
    ],
)
def test_a_record_names_only_trusted_packages_and_our_files(
    tmp_path: Path, line: str, packages: tuple[str, ...], message: str | None
) -> None:
    (tmp_path / ".hydra").mkdir()
    record = OmegaConf.to_yaml(OmegaConf.create([line, "packages=[ownpkg]"]))
    (tmp_path / ".hydra" / "overrides.yaml").write_text(record)
    if message is None:
        assert recorded_overrides(tmp_path, packages) == [line]  # and never its packages
    else:
        with pytest.raises(UserError, match=message):
            recorded_overrides(tmp_path, packages)


@pytest.mark.parametrize("resumes", [False, slow(True)])
def test_the_command_takes_a_config_dir_and_resumes_with_it(
    preloaded: Preloaded, package: Path, tmp_path: Path, resumes: bool
) -> None:
    """In a process of its own, where the package is found in the current folder."""
    place = [f"hydra.run.dir={tmp_path}", f"data_dir={tmp_path / 'data'}"]
    words = ["data=halves", "model=net", "augment=jitter", *QUICK, *place]

    def run(*words: str) -> str:
        done = preloaded.run(package, TRAIN, "--config-dir", "conf", *words)
        done.check_returncode()
        return done.stdout

    assert "ColorJitter works on one image at a time, which is slower" in run(*words)
    if resumes:
        assert "epoch 2/2" in run(f"resume={tmp_path}", "trainer.max_epochs=2")


def test_a_transform_of_torchvision_resumes_to_the_same_weights(train: Train) -> None:
    words = (
        "data=photos",
        "model=linear",
        "augment=[flip,jitter]",
        "scheduler=constant",
        "data.batch_size=5",
    )
    whole, half = train(*words, "trainer.max_epochs=2"), train(*words)
    train(f"resume={half}", "trainer.max_epochs=2")
    one, other = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (whole, half)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("scheduler", ["shrink", "annealing"])
def test_a_scheduler_of_torch_is_extended_as_if_it_had_known(train: Train, scheduler: str) -> None:
    words = ("data=halves", "model=linear", f"scheduler={scheduler}")
    whole, half = train(*words, "trainer.max_epochs=3"), train(*words)
    train(f"resume={half}", "trainer.max_epochs=3")
    rates = [
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0][
            "param_groups"
        ][0]["lr"]
        for folder in (whole, half)
    ]
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)


def test_the_folder_of_a_project_is_named_in_place_of_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "birdproj" / "birdproj").mkdir(parents=True)
    (tmp_path / "birdproj" / "birdproj" / "net.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    said = "no module birdproj.net: type cd birdproj, or PYTHONPATH=birdproj before the command"
    with pytest.raises(UserError, match=said):
        require_target("model", "birdproj.net.Net")
