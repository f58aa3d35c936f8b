"""Muon: orthogonal updates for hidden matrices and kernels, AdamW for the rest."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conftest import composed
from glimpse.data.spec import ImageSpec
from glimpse.models.whitened_net import WhitenedNet
from glimpse.optim.muon import Muon, orthogonalised
from glimpse.optim.optimizer import build_optimizer


def build(network: nn.Module, *overrides: str) -> Muon:
    config, _ = composed("optimizer=muon", *overrides)
    optimizer = build_optimizer(network, config.optimizer)
    assert isinstance(optimizer, Muon)
    return optimizer


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.BatchNorm2d(12), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(12, 24), nn.Linear(24, 10),
    )  # fmt: skip


def step(net: nn.Module, optimizer: Muon) -> dict[str, Tensor]:
    """The change of each parameter in a step."""
    before = {name: p.detach().clone() for name, p in net.named_parameters()}

    def closure() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        return loss

    images, labels = torch.randn(16, 3, 8, 8), torch.arange(16) % 10
    optimizer.step(closure)
    return {name: p.detach() - before[name] for name, p in net.named_parameters()}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_updates_of_hidden_matrices_are_orthogonal(layout: torch.memory_format) -> None:
    net = network().to(memory_format=layout)
    change = step(net, build(net, "optimizer.weight_decay=0", "optimizer.lr=0.5"))
    for name in ("1.weight", "5.weight"):
        update = change[name].flatten(1)
        size = 0.5 * 0.2 * max(update.shape) ** 0.5  # Liu et al. 2025, equation 4
        values = torch.linalg.svdvals(update)[:9] / size  # ten classes: the gradient's rank is nine
        assert values.min() > 0.5, name
        assert values.max() < 1.5, name
    for name in ("0.weight", "6.weight", "6.bias", "2.weight"):  # AdamW's first step is lr, signed
        torch.testing.assert_close(change[name].abs().amax(), torch.tensor(0.5), rtol=0.01, atol=0)


def test_the_layout_in_memory_changes_nothing() -> None:
    changes = []
    for layout in (torch.contiguous_format, torch.channels_last):
        net = network().to(memory_format=layout)
        optimizer = build(net)
        torch.manual_seed(1)
        changes.append([step(net, optimizer)["1.weight"] for _ in range(3)][-1])
    torch.testing.assert_close(changes[0], changes[1], rtol=0.05, atol=1e-4)


def test_weight_decay_shrinks_matrices_and_spares_biases() -> None:
    net = network()
    optimizer = build(net, "optimizer.lr=0.5", "optimizer.weight_decay=0.4")
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    optimizer.step()
    for name, parameter in net.named_parameters():
        factor = 0.8 if parameter.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.detach(), factor * before[name])


def test_with_a_rate_of_their_own_matrices_keep_their_norm_and_turn_by_it() -> None:
    net = network()
    rate = "optimizer.matrix_lr=0.25"
    optimizer = build(net, rate, "optimizer.lr=0.001", "optimizer.num_iterations=8")
    step(net, optimizer)  # brings them to their norm
    for name in ("1.weight", "5.weight"):
        kernel = net.get_parameter(name).detach().flatten(1).clone()
        before = kernel * len(kernel) ** 0.5 / kernel.norm()
        step(net, optimizer)
        update = net.get_parameter(name).detach().flatten(1) - before
        values = torch.linalg.svdvals(update)[:9] / 0.25
        assert values.min() > 0.5, name
        assert values.max() < 1.5, name


def test_a_kernel_behind_a_fixed_first_layer_counts_as_hidden() -> None:
    config, _ = composed("optimizer=muon")
    spec = ImageSpec(4, tuple("abcd"), 3, 16, 16, (0.0,) * 3, (1.0,) * 3)
    net = WhitenedNet(spec, widths=[8, 8])
    optimizer = build_optimizer(net, config.optimizer)
    [matrices] = [g["params"] for g in optimizer.param_groups if g["is_muon"]]
    assert len(matrices) == 4
    assert matrices[0] is net.get_parameter("blocks.0.0.weight")


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (2, 6, 20), (2, 20, 6), (2, 6, 8)])
def test_the_iteration_finds_the_orthogonal_factor(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    cosine = F.cosine_similarity(orthogonalised(matrix, 5).flatten(), (left @ right).flatten(), 0)
    assert cosine > 0.97


@pytest.mark.parametrize(("hardware", "tolerance"), [(None, 1e-4), ("some", 0.03)])
@pytest.mark.parametrize("shape", [(6, 8), (6, 20), (20, 6)])
def test_the_iteration_bends_each_singular_value_by_the_quintic(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], hardware: str | None, tolerance: float
) -> None:
    monkeypatch.setattr("glimpse.optim.muon.bf16_hardware", lambda device: hardware)
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    expected = left @ torch.diag(values) @ right
    torch.testing.assert_close(orthogonalised(matrix, 5), expected.float(), atol=tolerance, rtol=0)


def test_its_state_can_be_saved_and_loaded() -> None:
    nets = network(), network()
    optimizers = [build(net) for net in nets]
    torch.manual_seed(1)
    step(nets[0], optimizers[0])
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for net, optimizer in zip(nets, optimizers, strict=True):
        torch.manual_seed(2)
        step(net, optimizer)
    for first, second in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(first, second)


def test_kernels_of_one_channel_each_are_no_matrices() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 12, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip
    groups = build(net, "optimizer.weight_decay=0").param_groups
    (matrices,) = [group["params"] for group in groups if group["is_muon"]]
    assert [tuple(matrix.shape) for matrix in matrices] == [(12, 8, 1, 1)]


def test_on_a_gpu_matrices_of_a_shape_are_updated_together(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = []
    shapes: list[tuple[int, ...]] = []

    def noted(found: Tensor, num_iterations: int) -> Tensor:
        shapes.append(tuple(found.shape))
        return orthogonalised(found, num_iterations)

    for together in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), *(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 4))
        monkeypatch.setattr("glimpse.optim.muon.is_queued", lambda _device, found=together: found)
        monkeypatch.setattr("glimpse.optim.muon.orthogonalised", noted)
        optimizer = build(net, "optimizer.matrix_lr=0.1")
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(16, 6)).square().sum().backward()
            optimizer.step()
        nets.append(net)
    assert shapes == [(8, 8)] * 9 + [(3, 8, 8)] * 3
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=1e-4)


def test_a_fused_one_learns_the_same_and_leaves_unscaling_to_the_scaler() -> None:
    changes = []
    for fused in (None, True):
        net = network()
        groups = [{"params": list(net.parameters())}]
        optimizer = Muon(groups, lr=0.1, fused=fused)
        assert not optimizer._step_supports_amp_scaling
        torch.manual_seed(1)
        changes.append([step(net, optimizer) for _ in range(2)][-1])
    for name in ("1.weight", "5.weight", "6.weight", "6.bias"):
        torch.testing.assert_close(changes[1][name], changes[0][name], rtol=0.01, atol=1e-4)
