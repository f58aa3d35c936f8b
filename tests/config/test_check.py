"""The configuration: every YAML builds, and every mistake in it is one line."""

import inspect
import itertools
import re
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from conftest import CONF, choices, composed, slow
from folders import write_run
from glimpse.config.build import build, require_target
from glimpse.config.compose import composed as composed_of
from glimpse.config.compose import hydra_for
from glimpse.config.keys import content_of, leaves, leaves_of
from glimpse.config.schema import LISTS, OTHER_KINDS, RANGES, TARGETS
from glimpse.errors import UserError

OWNED = {  # arguments of Lightning's Trainer that other groups or the run itself own
    "logger", "callbacks", "enable_checkpointing", "enable_progress_bar", "enable_model_summary",
    "use_distributed_sampler", "plugins", "default_root_dir", "barebones",
}  # fmt: skip
WITHOUT_EFFECT = {"enable_autolog_hparams", "limit_predict_batches", "model_registry"}  # here


JITTER = """
_target_: torchvision.transforms.v2.ColorJitter
brightness: [0.5, 1.5]
hue: [-0.1, 0.1]
"""


def test_ranges_are_those_of_our_own_classes(tmp_path: Path) -> None:
    (tmp_path / "augment").mkdir()
    (tmp_path / "augment" / "jitter.yaml").write_text(JITTER)
    for choice in ("augment=jitter", "augment=[flip,jitter]"):
        composed_of([choice], config_dir=tmp_path)
    with pytest.raises(UserError, match=r"augment.colour_jitter.hue=0.7: expected at most 0.5"):
        composed_of(["augment=[flip,colour_jitter]", "augment.colour_jitter.hue=0.7"])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "callbacks/mine.yaml",
            "mine: {patience: 3}",
            r"callbacks=\[mine\]: its file has no _target_",
        ),
        ("trainer/mine.yaml", "max_epochs: 3", r"write defaults: \[auto\] as its first line"),
    ],
)
def test_what_a_file_lacks_is_said(tmp_path: Path, file: str, content: str, message: str) -> None:
    path = tmp_path / file
    path.parent.mkdir()
    path.write_text(content)
    group = path.parent.name
    with pytest.raises(UserError, match=message):
        composed_of(
            [f"{group}={'[mine]' if group == 'callbacks' else 'mine'}"], config_dir=tmp_path
        )


def test_every_trainer_argument_is_listed() -> None:
    ours = set(OmegaConf.load(CONF / "trainer" / "auto.yaml"))
    theirs = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    assert ours == theirs - OWNED - WITHOUT_EFFECT


ANY_NUMBER = {  # numeric keys that need no range
    "data.groups", "data.label", "data.path", "data.split",  # numbers of columns or parts, and names
    "trainer.devices", "trainer.precision",  # checked with the other values that they take
}  # fmt: skip


def test_every_number_has_a_range() -> None:
    missing = set()
    for file in (CONF / "train.yaml", *sorted(CONF.glob("*/*.yaml"))):
        group = file.parent.name
        content = content_of(file) or {}
        if group == "experiment":  # sets keys of the others
            continue
        content = {key: value for key, value in content.items() if key not in ("defaults", "hydra")}
        has_parts = all(isinstance(value, dict) for value in content.values())
        inside = f"{group}." if has_parts else f"{group}.{file.stem}."
        prefix = "" if group == "conf" else inside if group in LISTS else f"{group}."
        for key, value in leaves_of(content, prefix):
            kinds = {type(one) for one in (value if isinstance(value, list) else [value])}
            kinds |= set(OTHER_KINDS.get(key, ()))
            if kinds & {int, float} and key not in RANGES:
                missing.add(key)
    assert missing <= ANY_NUMBER


def files_with_target() -> list[Path]:
    return sorted(
        path
        for group in TARGETS
        for path in (CONF / group).glob("[!_]*.yaml")
        if "_target_" in path.read_text()
    )


@pytest.mark.parametrize("path", files_with_target(), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_yaml_lists_the_arguments_of_its_target(path: Path) -> None:
    group = path.parent.name
    node = OmegaConf.load(path)
    if "defaults" in node:
        node = compose("train", overrides=[f"{group}={path.stem}"])[group]
    if group in LISTS:
        node = node[path.stem]
    target = require_target(group, node._target_)
    classes = inspect.getmro(target) if inspect.isclass(target) else (target,)
    accepted: set[str] = set()
    for cls in classes:
        function = cls.__init__ if inspect.isclass(cls) else cls
        accepted |= set(inspect.signature(function).parameters)
        if not any(
            p.kind == p.VAR_KEYWORD for p in inspect.signature(function).parameters.values()
        ):
            break
    ours = {"optimizer": {"decay_all"}, "model": {"weights"}, "loss": {"class_weights"}}.get(
        group, set()
    ) - accepted
    listed = set(node) - {"_target_"} - ours
    assert listed <= accepted
    if node._target_.startswith("glimpse."):  # nothing of ours is out of reach of the command line
        given_by_the_run = {
            "self", "spec", "common", "augment", "data_dir", "seed", "optimizer", "params", "total_steps", "args", "kwargs",
            "no_matrices", "fused",
        }  # fmt: skip
        given_by_the_run |= {"num_classes"} if group == "metrics" else set()
        assert accepted - given_by_the_run == listed


def every_leaf() -> list[str]:
    config, _ = composed("callbacks=[early_stopping,time_limit]")
    return [key for key, _ in leaves(config) if not key.endswith("_target_")]


@pytest.mark.parametrize(
    "key", [key if number % 6 == 0 else slow(key) for number, key in enumerate(every_leaf())]
)
def test_a_key_misspelt_by_one_letter_is_named_with_the_right_one(key: str) -> None:
    misspelt = key[:-1] + ("x" if key[-1] != "x" else "y")
    near = re.escape(key.removesuffix("s"))  # data.foldx is as near to data.fold as to data.folds
    with pytest.raises(UserError, match=f"{re.escape(misspelt)} .*did you mean {near}"):
        composed("callbacks=[early_stopping,time_limit]", f"+{misspelt}=1")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=0", "at least 1"),
        ("data.batch_size=3.5", "a whole number"),
        ("trainer.max_epochs=abc", "a whole number"),
        ("data.val_fraction=1.5", "at most 0.9"),
        ("data.normalize=mean", "one of none, dataset, imagenet"),
        ("optimizer.lr=fast", "a number"),
        ("optimizer.lr=-1", "at least 0"),
        ("seed=true", "a whole number"),
        ("seed=null", "a whole number"),
        ("test=2", "true or false"),
        ("test=train", "one of true, false, val"),
        ("+trainer.model_registry=x", "trainer.model_registry is not a key"),
        ("trainer.strategy=fsdp", "expected one of auto, ddp"),
        ("scheduler.warmup_fraction=2", "expected at most 0.999999"),
        (
            "trainer.limit_val_batches=1.5",
            "expected a share of at most 1.0, or a whole number of batches, such as "
            "trainer.limit_val_batches=2",
        ),
        ("tta=mirror", "one of null, flip, flip_shift"),
        ("lr_find.num_steps=5", "at least 20"),
        ("optimizer._target_=cosine", "expected a torch.optim.Optimizer"),
        ("data=image_folder", "data.root is not set"),
        ("data=torchvision", "data.name is not set"),
        ("data.on_bad_file=ignore", "one of error, skip"),
        ("+data.deeper.key=1", "data.deeper.key is not a key"),
        ("+data.url.x=1", "data.url.x is not a key"),
        ("+resume.x=1", "resume.x is not a key"),
        ("~trainer.max_epochs", "was removed from the configuration"),
        ("~model", "model was removed from the configuration: do not type ~model"),
        ("~loss", "loss was removed from the configuration: do not type ~loss"),
        ("data.batch_size=${seed}", "data.batch_size=0: expected at least 1"),
        ("trainer.accumulate_grad_batches=0", "at least 1"),
        (
            "optimizer.lr=nan",
            "optimizer.lr=nan: expected a finite number, such as optimizer.lr=0.001",
        ),
        ("optimizer.weight_decay=inf", "optimizer.weight_decay=inf: expected a finite number"),
        ("optimizer.betas=[0.9]", "optimizer.betas=[0.9]: expected two numbers, such as"),
        ("optimizer.betas=[0.9,1]", "at most 0.999999"),
        ("loss.label_smoothing=1", "loss.label_smoothing=1: expected at most 0.999"),
        ("loss.label_smoothing=-0.5", "expected at least 0"),
        ("trainer.accelerator=tpu", "expected one of auto, cpu, gpu, cuda, mps"),
        ("optimizer.betas=[0.9,nan]", "optimizer.betas=[0.9,nan]: expected a finite number"),
        ("loss.label_smoothing=1e999", "loss.label_smoothing=inf: expected a finite number"),
        (
            "trainer.gradient_clip_val=nan",
            "trainer.gradient_clip_val=nan: expected a finite number",
        ),
        ("model._target_='${oc.decode:os.getcwd}'", "expected a torch.nn.Module"),
        ("++trainer.max_epoch=1", "did you mean trainer.max_epochs"),
        ("model._target_=os.system", "expected a torch.nn.Module"),
        ("+data.classes=[{_target_:os.system}]", "not allowed"),
        ("+trainer.profiler={_target_:os.system}", "not allowed here"),
        ("callbacks.pictures=false", "type callbacks.pictures=null to turn it off"),
        ("logger.tensorboard=false", "type logger.tensorboard=null to turn it off"),
        ("callbacks=[null]", "callbacks=[null]: expected names: type callbacks=[] for none"),
        ("metrics=[f1,null]", "metrics=[f1,null]: expected names: type metrics=[f1]"),
        ("augment=[1,flip]", "augment=[1,flip]: expected names: type augment=[flip]"),
        ("model=[linear,mlp]", "expected one choice, found a list: type model=<choice>, or -m"),
        ("trainer.devices=0", "trainer.devices=0: expected a number of devices above 0"),
    ],
)
def test_mistake_is_one_line(override: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        composed(override)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["data=image_folder", "data.root=null"],
            "data.root=null: expected a value; for a name that is null, type \"data.root='null'\"",
        ),
        (["data=csv", "data.train=t.csv", "data.label=true"], "data.label=true: expected a word"),
        (
            ["callbacks=[finetune,frozen_features]"],
            "frozen_features and finetune cannot be combined",
        ),
        (["callbacks=[early_stopping,progressive_sizes]"], "until the last stage; remove one"),
        (["callbacks=[progressive_sizes]", "scheduler=plateau"], "type scheduler=onecycle"),
        (
            ["model=pretrained", "optimizer=muon", "optimizer.matrix_lr=0.1"],
            "destroys pretrained weights",
        ),
        (["+callbacks.ema.decay=0.9"], "type callbacks=[ema] too"),
        (
            ["model=pretrained", "callbacks=[frozen_features]", "augment=flip"],
            "type augment=none, or callbacks=[finetune]",
        ),
        (["model=pretrained", "callbacks=[frozen_features]", "tta=flip"], "type tta=null"),
        (["optimizer=sgd", "optimizer.momentum=0", "optimizer.nesterov=true"], "needs momentum"),
        (
            ["compile=reduce-overhead", "trainer.accumulate_grad_batches=2"],
            "overwrite accumulated gradients: type compile=default",
        ),
        (["scheduler=cosine", "scheduler.final_factor=-1"], "expected at least 0"),
        (["scheduler=step", "scheduler.factor=-1"], "expected at least 0"),
        (["scheduler=step", "scheduler.every=0"], "expected at least 1"),
        (["scheduler=plateau", "scheduler.factor=1"], "expected at most 0.999999"),
        (["trainer.max_time=5"], "such as trainer.max_time=00:01:30:00"),
        (["trainer.precision=bf17"], "expected one of auto, bf16-mixed"),
        (["trainer.gradient_clip_algorithm=both"], "expected one of null, norm, value"),
        (["trainer.benchmark=7"], "expected true or false"),
        (["trainer.max_steps=-7"], "expected at least -1"),
        (
            ["lr_find.start=1", "lr_find.end=0.1"],
            "lr_find.start=1: expected less than lr_find.end=0.1",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        composed(*overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "optimizer.lr: 0.1",
            "optimizer.lr in {file}: a dot does not separate keys in YAML: write optimizer: and, "
            "indented below it, lr: 0.1",
        ),
        ("sweep.plan: true", "write sweep: and, indented below it, plan: true"),
        (
            "callbacks:\n  pictures.every_n_epochs: 2",
            "pictures: and, indented below it, every_n_epochs",
        ),
    ],
)
def test_a_dotted_key_in_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, message: str
) -> None:
    """It has the name of a key, and would set nothing."""
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(f"# @package _global_\n{content}\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", str(tmp_path)])
    with pytest.raises(UserError, match=re.escape(message.format(file=file))):
        composed_of(["experiment=mine"], config_dir=tmp_path)


def test_names_that_a_part_of_a_run_receives_may_contain_dots() -> None:
    composed("data=torchvision", "data.name=MNIST", "+data.options.a={b.c: 1}")


def test_the_model_of_a_resumed_run_is_its_own(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")  # records the choice mlp, with the settings of linear
    composed(f"resume={folder}", "model=linear")
    message = (
        "was trained with model=mlp, not convnet: leave out model=convnet, or leave out resume="
    )
    with pytest.raises(UserError, match=message):
        composed(f"resume={folder}", "model=convnet")
    with pytest.raises(UserError, match="was trained with data=digits, not mnist: leave out"):
        composed(f"resume={folder}", "model=linear", "data=mnist")


def test_the_weights_of_a_resumed_run_are_those_of_its_checkpoint(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    (folder / ".hydra" / "config.yaml").write_text("model:\n  weights: null\n")
    with pytest.raises(UserError, match=r"model\.weights=w\.pt: .*: leave out model\.weights, or"):
        composed(f"resume={folder}", "model=linear", "model.weights=w.pt")


def test_a_callback_left_out_is_not_in_the_way_of_another() -> None:
    composed("model=pretrained", "callbacks=[finetune,frozen_features]", "callbacks.finetune=null")
    composed("model=pretrained", "model.weights=none", "optimizer=muon", "optimizer.matrix_lr=0.1")


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.functional.relu",  # a function, not of glimpse
        "torch.nn.Parameter",  # no module
        "glimpse.models.nothing.Net",
        "glimpse.crash.CrashError",
    ],
)
def test_target_of_another_kind_is_refused(target: str) -> None:
    with pytest.raises(UserError, match=re.escape(target)):
        build("model" if target.startswith("glimpse") else "loss", {"_target_": target})


def test_interpolation_and_null_where_they_make_sense() -> None:
    config, _ = composed("optimizer.lr=${optimizer.weight_decay}", "trainer.max_epochs=null")
    assert config.optimizer.lr == config.optimizer.weight_decay


def test_numbers_may_be_whole_where_a_fraction_is_the_default() -> None:
    config, _ = composed("optimizer.lr=1", "trainer.limit_train_batches=3", "trainer.devices=[0]")
    assert config.optimizer.lr == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["monitor=val/f1"], "type metrics=[f1] monitor=val/f1"),
        (["metrics=[f1]", "monitor=f1"], "did you mean val/f1?"),
        (["metrics=[auroc]", "monitor=val/auc"], "did you mean val/auroc?"),
        (["monitor=val/auc"], "did you mean metrics=[auroc] monitor=val/auroc?"),
        (["monitor=val_loss"], "did you mean val/loss?"),
        (["monitor=train/los"], "did you mean train/loss?"),
        (["metrics=[balanced_accuracy]", "monitor=val/bal"], "did you mean val/balanced_accuracy?"),
        (["monitor=acc"], "did you mean val/acc?"),
        (
            ["monitor=accuracy"],
            "monitor=accuracy is not a metric of this run: did you mean val/acc?",
        ),
        (["monitor=Val/Acc"], "did you mean val/acc?"),
        (["monitor=train/accuracy"], "did you mean train/acc?"),
        (["monitor=test/accuracy"], "must not influence training; type monitor=val/acc"),
        (["monitor=val/balanced_acuracy"], "did you mean metrics=[balanced_accuracy]"),
        (["monitor=test/acc"], "must not influence training; type monitor=val/acc"),
        (["monitor=nonsense"], "expected one of val/loss, val/acc"),
        (["callbacks=[early_stopping]", "callbacks.early_stopping.monitor=val/f1"], "metrics=[f1]"),
        (["scheduler=plateau", "scheduler.monitor=val_acc"], "did you mean val/acc?"),
        (["mode=up"], "one of null, min, max"),
        (["mode=min"], "mode=min needs a monitor: type monitor=val/loss, or leave out mode"),
        (["checkpoints.top_k=0"], "at least 1"),
        (["checkpoints.every_minutes=0"], "at least 0.001"),
        (["metrics=[f1]", "metrics.f1.averge=micro"], "did you mean metrics.f1.average?"),
        (["data.folds=5"], "-m data.fold=0,1,2,3,4 for all of them"),
        (["data.fold=1"], "type data.folds=5 data.fold=1"),
        (["data.folds=3", "data.fold=3"], "expected 0 to 2"),
        (["data.folds=1", "data.fold=0"], "at least 2"),
        (["data.sampling=weighted"], "one of shuffle, balanced, sqrt"),
        (["loss=focal", "loss.gamma=-1"], "at least 0"),
    ],
)
def test_what_cannot_judge_or_divide_a_run_is_one_line(overrides: list[str], message: str) -> None:
    typed = [f"+{o}" if "averge" in o else o for o in overrides]
    with pytest.raises(UserError, match=re.escape(message)) as error:
        composed(*typed)
    assert "\n" not in str(error.value)


def test_a_metric_of_ones_own_is_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "g_mean.yaml").write_text("_target_: mine.GMean\n")
    monkeypatch.setattr(sys, "argv", ["train.py", "--config-dir", str(tmp_path)])
    with pytest.raises(UserError, match=r"type metrics=\[g_mean\] monitor=val/g_mean"):
        composed("monitor=val/g_mean")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ("val/loss", "min")),
        (["monitor=val/acc"], ("val/acc", "max")),
        (["monitor=val/acc", "mode=min"], ("val/acc", "min")),
        (["metrics=[calibration]", "monitor=val/calibration"], ("val/calibration", "min")),
    ],
)
def test_early_stopping_and_plateau_watch_the_monitor(
    overrides: list[str], expected: tuple[str, str]
) -> None:
    config, _ = composed("callbacks=[early_stopping]", "scheduler=plateau", *overrides)
    stopping = config.callbacks.early_stopping
    assert (stopping.monitor, stopping.mode) == expected
    assert (config.scheduler.monitor, config.scheduler.mode) == expected


def test_what_early_stopping_watches_by_itself_has_the_mode_of_its_name() -> None:
    own = "callbacks.early_stopping.monitor=val/acc"
    config, _ = composed("callbacks=[early_stopping]", own)
    assert config.callbacks.early_stopping.mode == "max"


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ("[a]", "expected whole numbers, such as model.widths=[512]"),
        ("[1.5]", "expected whole numbers, such as model.widths=[512]"),
        ("[0]", "expected at least 1"),
    ],
)
def test_a_list_of_numbers_holds_numbers_in_range(widths: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        composed("model=mlp", f"model.widths={widths}")


# test_pairs.py composes every dataset and model, test_run.py every callback and experiment.
def test_every_choice_composes() -> None:
    composed(*(f"{group}=[{','.join(choices(group))}]" for group in ("metrics", "logger")))
    groups = ("optimizer", "scheduler", "loss", "augment")
    for together in itertools.zip_longest(*map(choices, groups)):  # which takes few composings
        composed(*(f"{g}={choice}" for g, choice in zip(groups, together, strict=True) if choice))


def test_help_names_every_group_and_root_key() -> None:
    root = OmegaConf.load(CONF / "train.yaml")
    template = root.hydra.help.template
    for key in set(root) - {"defaults", "hydra", "callbacks", "model"}:
        assert re.search(rf"^\s+{key}[.=]", template, re.M), key
    assert template.count("python train.py") >= 5


def test_parts_of_other_files_are_no_choices() -> None:
    with hydra_for():
        loader = GlobalHydra.instance().config_loader()
        assert loader.get_group_options("data") == choices("data")
