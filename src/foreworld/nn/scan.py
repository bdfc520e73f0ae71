"""The loop of a recurrent state-space model over a whole sequence, with its backward pass written by hand.

Automatic differentiation of such a loop spends most of its time on bookkeeping: at every step it
records some forty operations and adds to the gradient of every weight. Here the loop back only
carries gradients from state to state, and the gradient of a weight is one matrix product over all
steps at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from foreworld.nn import norm_silu
from foreworld.nn.distributions import Latent
from foreworld.nn.mlp import MLP, Hidden, Linear
from foreworld.nn.precision import as_given, at_least_single, product_dtype


class Core(NamedTuple):
    """Weights of a block GRU with state [B, D], input layers of width U and G blocks, laid out for a loop.

    Attributes:
        deter_in: [D, U], of the input layer on the deterministic state, and `deter_bias` [U].
        stoch_in: [Z, U], of the input layer on the stochastic state, and `stoch_bias` [U].
        scales: [2, 1, U], of the norms of both.
        deter_out: [U, D], from the first to the hidden layer of all blocks.
        stoch_out: [U, D], from the second.
        near: [G, D/G, D/G], from each block of the state to its own hidden layer.
        scale: [D], of the hidden layer's norm.
        gates: [G, D/G, 3D/G], to reset gate, candidate and update gate, and `gates_bias` [G, 1, 3D/G].
    """

    deter_in: Tensor
    deter_bias: Tensor
    stoch_in: Tensor
    stoch_bias: Tensor
    scales: Tensor
    deter_out: Tensor
    stoch_out: Tensor
    near: Tensor
    scale: Tensor
    gates: Tensor
    gates_bias: Tensor


class Layer(NamedTuple):
    """Linear, RMSNorm, SiLU.

    Attributes:
        weight: [in, out].
        bias: [out], or [T, B, out] where it differs from step to step.
        scale: [out], of the norm.
    """

    weight: Tensor
    bias: Tensor
    scale: Tensor


class Head(NamedTuple):
    """Hidden layers, and the linear one at the end with `weight` [in, P] and `bias` [P]."""

    hidden: tuple[Layer, ...]
    weight: Tensor
    bias: Tensor


def layout(hidden: MLP, out: Linear) -> Head:
    """Lay a head out for a loop.

    Args:
        hidden: its hidden layers.
        out: the linear layer at its end.

    Returns:
        The same weights, not copied, as `scan` takes them.
    """
    modules = [module for module in hidden if isinstance(module, Hidden)]
    found = (Layer(module.linear.weight.t(), module.linear.bias, module.norm.scale) for module in modules)
    return Head(tuple(found), out.weight.t(), out.bias)


class GRUTape(NamedTuple):
    """What one step of the GRU leaves for its backward."""

    deter: Tensor
    stoch: Tensor
    inputs: norm_silu.NormSilu
    hidden: norm_silu.NormSilu
    opened: Tensor
    raw: Tensor
    cand: Tensor


class Tape(NamedTuple):
    """What one step leaves for its backward."""

    gru: GRUTape
    deter: Tensor
    head: list[norm_silu.NormSilu]
    params: Tensor
    stoch: Tensor


class GRUTrace(NamedTuple):
    """Of one step of the GRU, what went into every linear map and the gradient of what came out.

    The gradient of a weight is the product of both, over all steps at once; that of a norm's
    scale is the sum of `first_scale` or `second_scale`.
    """

    deter: Tensor
    stoch: Tensor
    first: Tensor
    of_first: Tensor
    first_scale: Tensor
    second: Tensor
    of_second: Tensor
    second_scale: Tensor
    of_gates: Tensor


class LayerTrace(NamedTuple):
    """The same for one layer of the head."""

    x: Tensor
    grad: Tensor
    scale: Tensor | None


def scan(
    core: Core,
    head: Head,
    latent: Latent,
    deter: Tensor,
    stoch: Tensor,
    drive: Tensor,
    keep: Sequence[Tensor | None],
    noise: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run h' = GRU(h, z, a), p = head(h'), z' ~ latent(p) over T steps.

    Args:
        core: weights of the GRU.
        head: from h' to the parameters of z'.
        latent: how parameters and noise become z'.
        deter: [B, D] at the start.
        stoch: [B, Z] at the start.
        drive: [T, B, D], what actions and the bias add to the hidden layer; [D] without actions.
        keep: of each step, [B, 1] factors that reset the state before it, or None to go on.
        noise: [T, B, ..] for `latent.draw`, or None.

    Returns:
        Deterministic states [T, B, D], samples [T, B, Z], parameters [T, B, P].
    """
    weights = (*core, *(x for layer in head.hidden for x in layer), head.weight, head.bias)
    # a recurrence adds up its rounding errors, so it keeps the precision of its state under autocast
    with as_given(deter):
        floats = (x.to(deter.dtype) for x in (stoch, drive, *weights))
        return _Scan.apply(latent, tuple(keep), noise, deter, *floats)


def follow(
    core: Core,
    head: Head,
    latent: Latent,
    deter: Tensor,
    stoch: Tensor,
    choose: Callable[[Tensor, Tensor], Tensor],
    noise: Sequence[Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Run the same loop without a gradient, where what drives a step depends on the states before it.

    Args:
        core: weights of the GRU.
        head: from h' to the parameters of z'.
        latent: how parameters and noise become z'.
        deter: [B, D] at the start.
        stoch: [B, Z] at the start.
        choose: from both states to the drive [B, D] of the next step.
        noise: of each of T steps, [B, ..] for `latent.draw`, or None.

    Returns:
        Deterministic states [T, B, D], samples [T, B, Z].
    """
    low, deters, stochs = product_dtype(deter), [], []
    core, head = _lower(core, head, low)
    with torch.no_grad():
        for t, drawn in enumerate(noise):
            drive = choose(deter, stoch).to(low)
            with as_given(deter):
                deter, _ = advance(core, deter, stoch, drive, taping=False)
                param, _ = think(head, deter.to(low), t, taping=False)
                stoch = latent.draw(at_least_single(param), drawn)
            deters.append(deter)
            stochs.append(stoch)
    return torch.stack(deters), torch.stack(stochs)


N = TypeVar("N", GRUTrace, LayerTrace)


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        latent: Latent,
        keep: tuple[Tensor | None, ...],
        noise: Tensor | None,
        deter: Tensor,
        stoch: Tensor,
        drive: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        core, head = _unflatten(weights)
        taping = any(ctx.needs_input_grad)
        tapes: list[Tape] = []
        deters, stochs, params = [], [], []
        for t, kept in enumerate(keep):
            if kept is not None:
                deter, stoch = deter * kept, stoch * kept
            deter, gru = advance(core, deter, stoch, _at(drive, t), taping)
            param, thoughts = think(head, deter, t, taping)
            stoch = latent.draw(param, None if noise is None else noise[t])
            deters.append(deter)
            stochs.append(stoch)
            params.append(param)
            if taping:
                tapes.append(Tape(gru, deter, thoughts, param, stoch))
        ctx.tapes, ctx.latent, ctx.keep, ctx.noise = tapes, latent, keep, noise
        ctx.save_for_backward(drive, *weights)
        return torch.stack(deters), torch.stack(stochs), torch.stack(params)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> tuple[Tensor | None, ...]:  # pyrefly: ignore[bad-override]
        with as_given(grad_outputs[0]):
            return _backward(ctx, *grad_outputs)


def _backward(ctx: Any, of_deters: Tensor, of_stochs: Tensor, of_params: Tensor) -> tuple[Tensor | None, ...]:
    drive, *weights = ctx.saved_tensors
    core, head = _unflatten(weights)
    tapes: list[Tape] = ctx.tapes
    cell: list[GRUTrace] = []
    thoughts: list[list[LayerTrace]] = []
    of_deter, of_stoch = torch.zeros_like(of_deters[0]), torch.zeros_like(of_stochs[0])
    for t in reversed(range(len(tapes))):
        tape, kept = tapes[t], ctx.keep[t]
        noise = None if ctx.noise is None else ctx.noise[t]
        of_param = ctx.latent.draw_back(tape.params, noise, tape.stoch, of_stoch + of_stochs[t])
        of_thought, thought = think_back(head, tape.head, tape.deter, of_param + of_params[t])
        of_deter, of_stoch, gru = advance_back(core, tape.gru, of_deter + of_deters[t] + of_thought)
        thoughts.append(thought)
        cell.append(gru)
        if kept is not None:
            of_deter, of_stoch = of_deter * kept, of_stoch * kept
    every = _stack(cell[::-1])
    layers = [_stack(steps[::-1]) for steps in zip(*thoughts, strict=True)]
    of_weights = [*_core_grads(core, every), *_head_grads(head, layers)]
    return None, None, None, of_deter, of_stoch, _bias_grad(drive, every.of_second), *of_weights


def advance(core: Core, deter: Tensor, stoch: Tensor, drive: Tensor, taping: bool) -> tuple[Tensor, GRUTape]:
    """Take one step of the GRU from [B, D] and [B, Z]; return the next [B, D] and the tape.

    Products are computed in the precision of the weights; the state keeps its own. Without `taping` it works in place,
    which halves the memory that passes through the cache; the tape is of no use then.
    """
    count = core.near.shape[0]
    state, low = deter, core.near.dtype
    deter, stoch = deter.to(low), stoch.to(low)
    first = deter.new_empty(2, deter.shape[0], core.deter_in.shape[1])
    torch.addmm(core.deter_bias, deter, core.deter_in, out=first[0])
    torch.addmm(core.stoch_bias, stoch, core.stoch_in, out=first[1])
    inputs = norm_silu.forward(first, core.scales, taping)
    x = torch.addmm(drive, inputs.out[0], core.deter_out).addmm_(inputs.out[1], core.stoch_out)
    _blocks(x, count).baddbmm_(_blocks(deter, count), core.near)
    hidden = norm_silu.forward(x, core.scale, taping)
    gates = torch.baddbmm(core.gates_bias, _blocks(hidden.out, count), core.gates)
    gates = gates.to(state.dtype)
    raw = _thirds(gates)[1]
    opened = gates.sigmoid() if taping else gates
    reset, _, update = _thirds(opened)
    if not taping:
        reset.sigmoid_()
        update.sigmoid_()
    cand = torch.mul(reset, raw).tanh_()
    after = torch.lerp(_blocks(state, count), cand, update).transpose(0, 1).flatten(1)
    return after, GRUTape(deter, stoch, inputs, hidden, opened, raw, cand)


def advance_back(core: Core, tape: GRUTape, grad: Tensor) -> tuple[Tensor, Tensor, GRUTrace]:
    """Undo `advance`: the gradients of both states before the step, and the trace."""
    count = core.near.shape[0]
    reset, _, update = _thirds(tape.opened)
    before, after = _blocks(tape.deter, count), _blocks(grad, count)
    of_cand = after * update * (1 - tape.cand.square())
    of_gates = torch.empty_like(tape.opened)
    of_reset, of_raw, of_update = _thirds(of_gates)
    torch.mul(of_cand, tape.raw, out=of_reset)
    torch.mul(of_cand, reset, out=of_raw)
    torch.mul(after, tape.cand - before, out=of_update)
    of_reset.mul_(reset).mul_(1 - reset)
    of_update.mul_(update).mul_(1 - update)
    of_deter = (after - after * update).transpose(0, 1).flatten(1)
    of_hidden = torch.bmm(of_gates, core.gates.transpose(1, 2)).transpose(0, 1).flatten(1)
    pre, second_scale = norm_silu.backward(of_hidden, tape.hidden, core.scale)
    _blocks(of_deter, count).baddbmm_(_blocks(pre, count), core.near.transpose(1, 2))
    of_inputs = torch.stack([pre @ core.deter_out.t(), pre @ core.stoch_out.t()])
    first, first_scale = norm_silu.backward(of_inputs, tape.inputs, core.scales)
    of_deter.addmm_(first[0], core.deter_in.t())
    trace = GRUTrace(
        tape.deter, tape.stoch, tape.inputs.out, first, first_scale, tape.hidden.out, pre, second_scale, of_gates
    )
    return of_deter, first[1] @ core.stoch_in.t(), trace


def think(head: Head, x: Tensor, t: int, taping: bool) -> tuple[Tensor, list[norm_silu.NormSilu]]:
    """Apply a head to [B, D] at step t; return its output [B, P] and the tape of its hidden layers."""
    tape = []
    for layer in head.hidden:
        tape.append(norm_silu.forward(torch.addmm(_at(layer.bias, t), x, layer.weight), layer.scale, taping))
        x = tape[-1].out
    return torch.addmm(head.bias, x, head.weight), tape


def think_back(head: Head, tape: list[norm_silu.NormSilu], x: Tensor, grad: Tensor) -> tuple[Tensor, list[LayerTrace]]:
    """Undo `think`, which began from `x`: the gradient of `x`, and the trace of every layer."""
    inputs = [x, *(done.out for done in tape)]
    traces = [LayerTrace(inputs[-1], grad, None)]
    grad = grad @ head.weight.t()
    for layer, done, below in zip(head.hidden[::-1], tape[::-1], inputs[-2::-1], strict=True):
        grad, scale = norm_silu.backward(grad, done, layer.scale)
        traces.append(LayerTrace(below, grad, scale))
        grad = grad @ layer.weight.t()
    return grad, traces[::-1]


def _core_grads(core: Core, every: GRUTrace) -> list[Tensor]:
    """Return the gradients of the GRU's weights, in the order of its fields; leaves of the trace are [T, ...]."""
    count = core.near.shape[0]
    first = every.of_first
    deter, second, of_second = every.deter.flatten(0, 1), every.second.flatten(0, 1), every.of_second.flatten(0, 1)
    of_gates = every.of_gates.transpose(0, 1).flatten(1, 2)
    return [
        _product(every.deter, first[:, 0]),
        first[:, 0].sum((0, 1)),
        _product(every.stoch, first[:, 1]),
        first[:, 1].sum((0, 1)),
        every.first_scale.sum((0, 2)).unsqueeze(1),
        _product(every.first[:, 0], every.of_second),
        _product(every.first[:, 1], every.of_second),
        torch.bmm(_blocks(deter, count).transpose(1, 2), _blocks(of_second, count)),
        every.second_scale.sum((0, 1)),
        torch.bmm(_blocks(second, count).transpose(1, 2), of_gates),
        of_gates.sum(1, keepdim=True),
    ]


def _head_grads(head: Head, traces: Sequence[LayerTrace]) -> list[Tensor]:
    """Return the gradients of the head's weights, in the order of its fields."""
    found = []
    for trace, bias in zip(traces, [*(layer.bias for layer in head.hidden), head.bias], strict=True):
        found += [_product(trace.x, trace.grad), _bias_grad(bias, trace.grad)]
        if trace.scale is not None:
            found.append(trace.scale.sum((0, 1)))
    return found


def _blocks(x: Tensor, count: int) -> Tensor:
    """View [B, D] as [G, B, D/G]."""
    return x.view(x.shape[0], count, -1).transpose(0, 1)


def _thirds(x: Tensor) -> tuple[Tensor, ...]:
    return x.chunk(3, -1)


def _at(bias: Tensor, t: int) -> Tensor:
    return bias if bias.dim() == 1 else bias[t]


def _bias_grad(bias: Tensor, grad: Tensor) -> Tensor:
    return grad.sum((0, 1)) if bias.dim() == 1 else grad


def _product(x: Tensor, grad: Tensor) -> Tensor:
    return x.flatten(0, 1).t() @ grad.flatten(0, 1)


def _stack(steps: Sequence[N]) -> N:
    columns = zip(*steps, strict=True)
    return type(steps[0])(*(None if column[0] is None else torch.stack(column) for column in columns))


def _lower(core: Core, head: Head, low: torch.dtype) -> tuple[Core, Head]:
    """Return weights in the precision of matrix products; the scales of norms stay as they are."""
    named = zip(Core._fields, core, strict=True)
    layers = (Layer(layer.weight.to(low), layer.bias.to(low), layer.scale) for layer in head.hidden)
    return (
        Core(*(x if name in ("scale", "scales") else x.to(low) for name, x in named)),
        Head(tuple(layers), head.weight.to(low), head.bias.to(low)),
    )


def _unflatten(weights: Sequence[Tensor]) -> tuple[Core, Head]:
    size = len(Core._fields)
    rest = weights[size:-2]
    hidden = tuple(Layer(*rest[i : i + 3]) for i in range(0, len(rest), 3))
    return Core(*weights[:size]), Head(hidden, *weights[-2:])
