"""Optimizers and schedules: weight decay where it belongs, rates sized from the run."""

import pytest
import torch
from torch import nn
from torch.optim import SGD

from conftest import choices, composed, slow
from glimpse.config.build import build
from glimpse.data.spec import ImageSpec
from glimpse.optim.muon import Muon
from glimpse.optim.optimizer import build_optimizer, remark_on
from glimpse.optim.schedules import build_schedule


@pytest.mark.parametrize("name", choices("optimizer"))
def test_weight_decay_is_kept_off_biases_and_norms(name: str) -> None:
    config, _ = composed(
        f"optimizer={name}", "optimizer.decay_all=false", "optimizer.weight_decay=0.1"
    )
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    decayed, plain = build_optimizer(network, config.optimizer).param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert len(plain["params"]) == 3


def test_muon_says_where_it_has_nothing_to_update() -> None:
    config, _ = composed("optimizer=muon", "optimizer.matrix_lr=0.1")
    one_hidden = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    two_hidden = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    remark = remark_on(one_hidden, config.optimizer)
    assert remark is not None
    assert "AdamW updates all weights and optimizer.matrix_lr has no effect" in remark
    assert remark_on(two_hidden, config.optimizer) is None
    assert remark_on(one_hidden, composed("optimizer=sgd")[0].optimizer) is None


def spec(size: int) -> ImageSpec:
    return ImageSpec(10, tuple("abcdefghij"), 3, size, size, (0.0,) * 3, (1.0,) * 3)


def names_of(network: nn.Module, parameters: list[nn.Parameter]) -> set[str]:
    names = {id(p): name for name, p in network.named_parameters()}
    return {names[id(p)] for p in parameters}


def decayed(network: nn.Module) -> set[str]:
    config, _ = composed("optimizer=adamw", "optimizer.decay_all=false")
    groups = build_optimizer(network, config.optimizer).param_groups
    return names_of(network, [p for g in groups if g["weight_decay"] for p in g["params"]])


def matrices_of_muon(network: nn.Module, *options: str) -> set[str]:
    config, _ = composed("optimizer=muon", *options)
    optimizer = build_optimizer(network, config.optimizer)
    assert isinstance(optimizer, Muon)
    groups = optimizer.param_groups
    return names_of(network, [p for g in groups if g["is_muon"] for p in g["params"]])


@pytest.mark.parametrize("name", [n for n in choices("model") if n != "pretrained"])
def test_our_models_decay_every_parameter_of_two_dimensions(name: str) -> None:
    config, _ = composed(f"model={name}")
    network = build("model", config.model, spec(32))
    trained = {n: p for n, p in network.named_parameters() if p.requires_grad}
    assert decayed(network) == {name for name, p in trained.items() if p.ndim >= 2}


# Of each, what has two or more dimensions and is no weight of a layer.
SPARED = {
    "vit_b_16": {"class_token", "pos_embedding"},
    "swin_t": {"relative_position_bias_table"},
    "swin_v2_t": {"logit_scale"},
    "convnext_tiny": {"layer_scale"},
    "timm/vit_tiny_patch16_224": {"cls_token", "pos_embed"},
    "timm/pit_ti_224": {"cls_token", "pos_embed"},
    "timm/nf_resnet26": {"gain"},
}


# One of each library's tokens, of tables and of gains.
REPRESENTATIVES = ("vit_b_16", "swin_t", "timm/vit_tiny_patch16_224", "timm/nf_resnet26")


@pytest.mark.parametrize("architecture", [a if a in REPRESENTATIVES else slow(a) for a in SPARED])
def test_tokens_embeddings_and_tables_are_neither_decayed_nor_matrices(architecture: str) -> None:
    if architecture.startswith("timm/"):
        pytest.importorskip("timm")
    config, _ = composed(
        "model=pretrained", f"model.architecture={architecture}", "model.weights=none"
    )
    network = build("model", config.model, spec(224))
    shaped = {name for name, p in network.named_parameters() if p.ndim >= 2}
    tables = shaped - decayed(network)
    assert {name.rpartition(".")[2] for name in tables} == SPARED[architecture]
    assert all("weight" in name for name in decayed(network))
    for decay_all in ("true", "false"):
        matrices = matrices_of_muon(network, f"optimizer.decay_all={decay_all}")
        assert matrices
        assert matrices <= shaped - tables


class Odd(nn.Module):
    """Weights that are none, and weights under other names."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm([3, 4])
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=3)
        self.bound = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
        self.part = Part()
        self.head = nn.Linear(4, 2)


class Part(nn.Module):
    """It names what should not be decayed, as timm's networks do: by name or pattern."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 4))
        self.mix = nn.Linear(4, 4)
        self.plain = nn.Linear(4, 4)

    def no_weight_decay(self) -> set[str]:
        return {"positions.*", "mix.weight"}


def test_weights_are_told_by_their_names_and_layers() -> None:
    matrices = {
        "attention.q_proj_weight", "attention.k_proj_weight", "attention.v_proj_weight",
        "attention.out_proj.weight", "bound.parametrizations.weight.original",
        "part.plain.weight", "head.weight",
    }  # fmt: skip
    assert decayed(Odd()) == matrices
    assert matrices_of_muon(Odd()) < matrices


def rates(name: str, *overrides: str, total_steps: int = 100, epochs: int = 10) -> list[float]:
    config, _ = composed(f"scheduler={name}", *overrides)
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    steps_per_epoch = total_steps // epochs
    schedule = build_schedule(optimizer, config.scheduler, total_steps=total_steps)
    values = []
    for step in range(total_steps):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule.interval == "step" or (
            schedule.interval == "epoch" and (step + 1) % steps_per_epoch == 0
        ):
            schedule.scheduler.step()
    return values


def test_constant() -> None:
    assert set(rates("constant")) == {0.1}


def test_cosine_warms_up_and_ends_at_its_final_factor() -> None:
    values = rates("cosine", "scheduler.warmup_fraction=0.1", "scheduler.final_factor=0.01")
    assert values[0] < values[5] < values[10] == pytest.approx(0.1)
    assert values == [*values[:10], *sorted(values[10:], reverse=True)]
    assert values[-1] == pytest.approx(0.001, rel=0.1)


def test_onecycle_rises_to_the_rate_and_falls() -> None:
    values = rates("onecycle", "scheduler.warmup_fraction=0.25")
    assert values[0] == pytest.approx(0.004)
    assert max(values) == values[25] == pytest.approx(0.1)
    assert values[-1] < 0.001


def test_onecycle_along_straight_lines() -> None:
    values = rates("onecycle", "scheduler.warmup_fraction=0.2", "scheduler.anneal_strategy=linear")
    rising, falling = values[:21], values[20:]
    assert rising == pytest.approx([0.004 + 0.0048 * step for step in range(21)])
    assert falling == pytest.approx([0.1 - 0.0999900 / 80 * step for step in range(80)])


def test_onecycle_without_a_warmup_begins_at_its_rate() -> None:
    values = rates("onecycle", "scheduler.warmup_fraction=0")
    assert values[0] == 0.1
    assert values == sorted(values, reverse=True)


def test_step_falls_every_so_many_epochs() -> None:
    values = rates("step", "scheduler.every=4", "scheduler.factor=0.5")
    assert values[39] == 0.1
    assert values[40] == pytest.approx(0.05)
    assert values[99] == pytest.approx(0.025)


@pytest.mark.parametrize("total_steps", [1, 2, 3])
@pytest.mark.parametrize("name", choices("scheduler"))
def test_a_run_of_a_few_steps_has_positive_rates(name: str, total_steps: int) -> None:
    assert all(0 < value <= 0.1 for value in rates(name, total_steps=total_steps, epochs=1))
