"""The hand-written recurrence against automatic differentiation of the plain layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foreworld.core import deterministic
from foreworld.nn import (
    MLP,
    BlockGRU,
    CategoricalLatent,
    DeterministicLatent,
    GaussianLatent,
    Head,
    Latent,
    Layer,
    Linear,
    layout,
    scan,
)

T, B, ACTION, UNITS, DETER, BLOCKS = 5, 3, 2, 6, 8, 2
LATENTS = [CategoricalLatent(3, 4, 0.05), GaussianLatent(4), DeterministicLatent(5)]


class Net(nn.Module):
    """A cell with two heads: one that also reads tokens, and one with two hidden layers."""

    def __init__(self, latent: Latent, action: int) -> None:
        super().__init__()
        self.latent = latent
        self.cell = BlockGRU(DETER, latent.width, action, UNITS, BLOCKS)
        self.hidden, self.out = MLP(DETER, UNITS, 2), Linear(UNITS, latent.params)


def plainly(net: Net, start: tuple[Tensor, Tensor], action: Any, tokens: Tensor, keep: Any, noise: Any) -> Any:
    """Run the loop with the modules themselves."""
    deter, stoch = start
    embedded = net.cell.embed_action(action)
    found = []
    for t in range(T):
        if keep[t] is not None:
            deter, stoch = deter * keep[t], stoch * keep[t]
        deter = net.cell(deter, stoch, None if embedded is None else embedded[t])
        first = net.hidden[0]
        x = nn.functional.silu(first.norm(first.linear(deter) + tokens[t]))
        params = net.out(net.hidden[1](x))
        stoch = net.latent.draw(params, None if noise is None else noise[t])
        found.append((deter, stoch, params))
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))


def scanned(net: Net, start: tuple[Tensor, Tensor], action: Any, tokens: Tensor, keep: Any, noise: Any) -> Any:
    """Run the same through `scan`."""
    head = layout(net.hidden, net.out)
    first = Layer(head.hidden[0].weight, tokens + head.hidden[0].bias, head.hidden[0].scale)
    head = Head((first, *head.hidden[1:]), head.weight, head.bias)
    drive = net.cell.drive(net.cell.embed_action(action))
    return scan(net.cell.core(), head, net.latent, *start, drive, keep, noise)


def gradients(run: Callable[..., Any], net: Net, action: Tensor | None, noise: Tensor | None) -> dict[str, Tensor]:
    """Return outputs, and gradients of everything under a random weighing of the outputs."""
    torch.manual_seed(1)
    inputs = {
        "deter": torch.rand(B, DETER),
        "stoch": torch.randn(B, net.latent.width),
        "tokens": torch.randn(T, B, UNITS),
    }
    inputs = {name: value.double().requires_grad_() for name, value in inputs.items()}
    keep: list[Tensor | None] = [None] * T
    keep[2] = torch.tensor([[1.0], [0.0], [1.0]]).double()
    net.zero_grad()
    outputs = run(net, (inputs["deter"], inputs["stoch"]), action, inputs["tokens"], keep, noise)
    weights = [torch.randn(out.shape).double() for out in outputs]
    sum((w * (out + out.square())).sum() for w, out in zip(weights, outputs, strict=True)).backward()
    found = {f"output {i}": out.detach() for i, out in enumerate(outputs)}
    tensors = inputs | dict(net.named_parameters()) | ({} if action is None else {"action": action})
    for name, tensor in tensors.items():
        assert tensor.grad is not None, name
        found[name] = tensor.grad.clone()
        tensor.grad = None
    return found


@pytest.mark.parametrize("action", [ACTION, 0], ids=["actions", "no_action"])
@pytest.mark.parametrize("latent", LATENTS, ids=lambda latent: type(latent).__name__)
@pytest.mark.parametrize("sampling", [True, False], ids=["samples", "modes"])
def test_states_and_gradients_are_those_of_the_plain_loop(latent: Latent, action: int, sampling: bool) -> None:
    torch.manual_seed(0)
    net = Net(latent, action).double()
    actions = torch.randn(T, B, action).double().requires_grad_() if action else None
    noise = latent.noise(torch.zeros(0).double(), T, B) if sampling else None
    wanted, found = (gradients(run, net, actions, noise) for run in (plainly, scanned))
    assert set(found) == set(wanted)
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-9, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}")


def test_without_gradients_nothing_is_kept_and_the_states_are_the_same() -> None:
    torch.manual_seed(0)
    net = Net(LATENTS[1], ACTION)
    start, action, tokens = (
        (torch.rand(B, DETER), torch.randn(B, 4)),
        torch.randn(T, B, ACTION),
        torch.randn(T, B, UNITS),
    )
    wanted = scanned(net, start, action, tokens, [None] * T, None)
    with torch.no_grad():
        found = scanned(net, start, action, tokens, [None] * T, None)
    assert all(torch.equal(a, b.detach()) for a, b in zip(found, wanted, strict=True))
    assert not any(out.requires_grad for out in found)


def test_autocast_leaves_the_recurrence_in_the_precision_of_its_state() -> None:
    torch.manual_seed(0)
    net = Net(LATENTS[1], ACTION)
    start = torch.randn(B, DETER), torch.randn(B, 4)
    action, tokens = torch.randn(T, B, ACTION), torch.randn(T, B, UNITS)
    plain = scanned(net, start, action, tokens, [None] * T, None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = scanned(net, start, action, tokens, [None] * T, None)
        found[0].sum().backward()
    assert all(a.dtype is torch.float32 for a in found)
    torch.testing.assert_close(found[0], plain[0], atol=0.02, rtol=0)


def test_the_way_back_is_in_single_precision_under_autocast_too() -> None:
    torch.manual_seed(0)
    net = Net(LATENTS[1], ACTION)
    start = torch.randn(B, DETER), torch.randn(B, 4)
    action, tokens = torch.randn(T, B, ACTION), torch.randn(T, B, UNITS)
    grads = []
    for half in (False, True):
        deter = scanned(net, start, action, tokens, [None] * T, None)[0]
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            grads.append(torch.autograd.grad(deter.square().sum(), [net.cell.gates.weight, net.out.weight]))
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("latent", LATENTS, ids=lambda latent: type(latent).__name__)
def test_noise_is_none_under_deterministic(latent: Latent) -> None:
    with deterministic():
        assert latent.noise(torch.zeros(1), 2, 3) is None


def test_categorical_samples_are_one_hot_with_the_right_shares() -> None:
    latent = CategoricalLatent(2, 5, 0.1)
    params = torch.randn(10, generator=torch.Generator().manual_seed(0)) * 2
    torch.manual_seed(0)
    n = 40_000
    drawn = latent.draw(params.expand(n, 10), latent.noise(params, n)).view(n, 2, 5)
    assert torch.equal(drawn.sum(-1), torch.ones(n, 2))
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(drawn.mean(0), latent.probs(params), atol=0.01, rtol=0)


@pytest.mark.parametrize("value", [0.0, 1 - 2**-24])
def test_the_ends_of_the_noise_still_choose_a_class(value: float) -> None:
    latent = CategoricalLatent(200, 7, 0.0)
    params = torch.randn(1400, generator=torch.Generator().manual_seed(1)) * 30
    drawn = latent.draw(params, torch.full((200, 1), value)).view(200, 7)
    assert torch.equal(drawn.sum(-1), torch.ones(200))
    assert bool((latent.probs(params)[drawn.bool()] > 0).all())
