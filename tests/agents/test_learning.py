"""In worlds that are known exactly, the actor finds what value iteration finds, and the critic the actor's values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_worlds import Place, Table, Tiny, rows
from torch import Tensor
from torch.nn import functional as F

from foreworld.agents import Dreamer, DreamerLearner
from foreworld.core import Segment, Space, Spec, Step
from foreworld.train.optim import LaProp
from foreworld.train.update import update

DISCOUNT = 0.9


@torch.no_grad()
def experience(model: Tiny, agent: Dreamer, starts: Tensor, length: int) -> Segment:
    """Act in a world, from given places anew after every end: what a replay would hold, [B, T]."""
    batch = starts.shape[1]
    place, first = starts[0], torch.ones(batch, dtype=torch.bool)
    found: dict[str, list[Tensor]] = {"obs": [], "reward": [], "is_first": [], "is_terminal": []}
    reward = torch.zeros(batch)
    for t in range(length):
        read = model.read(Place(at=place))
        assert read.cont is not None
        terminal = ~first & (read.cont < 0.5)
        for name, value in (("obs", place), ("reward", reward), ("is_first", first), ("is_terminal", terminal)):
            found[name].append(value)
        action = agent.policy(read.feat).sample().clamp(-1, 1)
        after = model.step(Place(at=place), action).at
        gain = model.read(Place(at=after)).reward
        assert gain is not None
        place = torch.where(terminal[:, None], starts[t + 1], after)
        reward, first = torch.where(terminal, 0.0, gain), terminal
    columns = {name: torch.stack(values, 1) for name, values in found.items()}
    return rows(columns.pop("obs"), is_last=columns["is_terminal"], **columns)


def learn(model: Tiny, draw: Any, updates: int, **fields: Any) -> Dreamer:
    """Let an agent learn in a world that is no longer learned itself; `draw(n)` gives places to start from."""
    torch.manual_seed(0)
    model.requires_grad_(False)
    settings = {
        "units": 32,
        "layers": 1,
        "horizon": 6,
        "discount": DISCOUNT,
        "entropy": 1e-3,
        "range_rate": 0.05,
        "slow_rate": 0.1,
    }
    agent = Dreamer(model, **(settings | fields))
    learner, optimizer = DreamerLearner(model, agent), LaProp(agent.parameters(), lr=5e-3, warmup=0, agc=0.0)
    for step in range(updates):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(1, 2 - 2 * step / updates)
        starts = draw(16 * 7).view(7, 16, -1)
        assert bool(update(learner, optimizer, experience(model, agent, starts, 6)).sound)
    return agent


# --- choices


def chain(slip: float = 0.1) -> Table:
    """Make a corridor of five rooms: a little to earn again and again at the left end, a lot once at the right end."""
    moves = torch.zeros(5, 2, 5)
    for room in range(5):
        for action, step in enumerate((-1, 1)):
            moves[room, action, max(0, min(4, room + step))] += 1 - slip
            moves[room, action, max(0, min(4, room - step))] += slip
    return Table(moves, torch.tensor([0.05, 0, 0, 0, 1.0]), torch.tensor([1.0, 1, 1, 1, 0]))


def bandit() -> Table:
    """Make a choice that is over at once: every context and arm lead to an outcome of their own."""
    worth = torch.tensor([[2.0, 0, 1, -1], [-1, 2, 1, 0], [0, 1, -1, 2]])
    contexts, arms = worth.shape
    states = contexts * (1 + arms)
    moves = torch.zeros(states, arms, states)
    for context in range(contexts):
        for arm in range(arms):
            moves[context, arm, contexts + context * arms + arm] = 1
    moves[contexts:, :, 0] = 1
    return Table(moves, F.pad(worth.flatten(), (contexts, 0)), (torch.arange(states) < contexts).float())


def action_values(model: Table, value: Tensor) -> Tensor:
    """Return Q [S, A] from the values of the states reached."""
    return model.moves.detach() @ (model.reward + DISCOUNT * model.cont * value).detach()


def best(model: Table) -> tuple[Tensor, Tensor]:
    """Find the best policy [S] and its values [S], by value iteration."""
    value = torch.zeros(model.width)
    for _ in range(500):
        value = action_values(model, value).max(-1).values
    return action_values(model, value).argmax(-1), value


def worth_of(model: Table, probs: Tensor) -> Tensor:
    """Return the exact values [S] of a policy [S, A], by a linear system."""
    moves = torch.einsum("sa,sat->st", probs, model.moves.detach())
    known = moves @ model.reward.detach()
    return torch.linalg.solve(torch.eye(model.width) - DISCOUNT * moves * model.cont.detach(), known)


@pytest.mark.parametrize(("world", "updates"), [(chain, 160), (bandit, 150)], ids=["chain", "bandit"])
def test_choices(world: Any, updates: int) -> None:
    model = world()
    alive = model.cont.detach() > 0

    def draw(count: int) -> Tensor:
        return F.one_hot(torch.randint(int(alive.sum()), (count,)), model.width).float()

    agent = learn(model, draw, updates)
    policy, value = best(model)
    feat = torch.eye(model.width)
    with torch.no_grad():
        probs, said = agent.actions.probs(agent.policy(feat).params)[0], agent.value(feat)  # type: ignore[attr-defined]
    exact, chance = worth_of(model, probs), worth_of(model, torch.full_like(probs, 1 / probs.shape[1]))
    myopic = F.one_hot(action_values(model, torch.zeros(model.width)).argmax(-1), probs.shape[1]).float()
    assert torch.equal(probs.argmax(-1)[alive], policy[alive]), "the best policy"
    assert bool((exact >= value - 0.03 * value.abs() - 0.01)[alive].all()), "nearly the best values"
    assert float(chance[alive].mean()) < float(exact[alive].mean()) - 0.2
    if world is chain:
        assert not torch.equal(myopic.argmax(-1)[alive], policy[alive]), "looking one step ahead is not enough"
    torch.testing.assert_close(said[alive], exact[alive], atol=0.02, rtol=0.03)


# --- numbers


class Aim(Tiny):
    """Aim at a target that depends on where one stands, once: the further off, the worse."""

    def __init__(self) -> None:
        spec = Spec(
            obs={"obs": Space(kind="vector", shape=(3,), dtype="float32")},
            action=Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,)),
        )
        super().__init__(spec, 3, 1)

    def step(self, state: Place, action: Tensor | None) -> Place:
        assert action is not None
        miss = (action - self.target(state.at[..., :1])).square()
        return Place(at=torch.cat([state.at[..., :1], -3 * miss, torch.ones_like(miss)], -1))

    def read(self, state: Place) -> Step:
        x, earned, over = state.at.unbind(-1)
        feat = torch.stack([x, x.square(), torch.sin(3 * x), torch.cos(3 * x), over], -1)
        return Step(feat=feat, reward=earned, cont=1 - over)

    def target(self, x: Tensor) -> Tensor:
        return 0.7 * torch.sin(3 * x)


class Regulator(Tiny):
    """Push a point back to zero, where it costs least to be; each push moves it by a quarter at most."""

    def __init__(self) -> None:
        spec = Spec(
            obs={"obs": Space(kind="vector", shape=(1,), dtype="float32")},
            action=Space(kind="vector", shape=(1,), dtype="float32", low=(-1.0,), high=(1.0,)),
        )
        super().__init__(spec, 1, 1)

    def step(self, state: Place, action: Tensor | None) -> Place:
        assert action is not None
        return Place(at=(state.at + 0.25 * action).clamp(-1, 1))

    def read(self, state: Place) -> Step:
        x = state.at.squeeze(-1)
        feat = torch.exp(-8 * (x.unsqueeze(-1) - torch.linspace(-1, 1, 9)).square())
        return Step(feat=feat, reward=-x.square(), cont=torch.ones_like(x))


GRID = torch.linspace(-1, 1, 81)


def spread(count: int) -> Tensor:
    return 2 * torch.rand(count, 1) - 1


@pytest.mark.slow
def test_numbers_chosen_once() -> None:
    model = Aim()
    agent = learn(model, lambda count: F.pad(spread(count), (0, 2)), 400)
    read = model.read(Place(at=F.pad(GRID[:, None], (0, 2))))
    with torch.no_grad():
        mean, std = agent.actions.split(agent.policy(read.feat).params)  # type: ignore[attr-defined]
        said = agent.value(read.feat)
    off = (mean - model.target(GRID[:, None])).squeeze(-1)
    assert float(off.abs().max()) < 0.25 and float(off.square().mean().sqrt()) < 0.08
    assert float(std.mean()) < 0.2, "almost as small as it can be"
    exact = -3 * (off.square() + std.squeeze(-1).square())
    torch.testing.assert_close(said, exact, atol=0.06, rtol=0)


def after(x: Tensor, action: Tensor) -> Tensor:
    return (x + 0.25 * action.clamp(-1, 1)).clamp(-1, 1)


def look_up(value: Tensor, x: Tensor) -> Tensor:
    """Interpolate values on the grid."""
    at = (x + 1) * 40
    below = at.floor().clamp(0, 79)
    return torch.lerp(value[below.long()], value[below.long() + 1], at - below)


@pytest.mark.slow
def test_numbers_chosen_again_and_again() -> None:
    model = Regulator()
    agent = learn(model, spread, 800, horizon=8)
    actions = torch.linspace(-1, 1, 41)
    reached = after(GRID[:, None], actions)
    value = torch.zeros(81)
    for _ in range(200):
        value = (-reached.square() + DISCOUNT * look_up(value, reached)).max(-1).values
    with torch.no_grad():
        read = model.read(Place(at=GRID[:, None]))
        mean, std = agent.actions.split(agent.policy(read.feat).params)  # type: ignore[attr-defined]
        said = agent.value(read.feat)
    # the policy's own values: its noise as 200 equally likely parts
    noise = torch.distributions.Normal(0.0, 1.0).icdf((torch.arange(200) + 0.5) / 200)
    chosen, exact, idle = after(GRID[:, None], mean + std * noise), torch.zeros(81), -GRID.square() / (1 - DISCOUNT)
    for _ in range(200):
        exact = (-chosen.square() + DISCOUNT * look_up(exact, chosen)).mean(-1)
    inner = GRID.abs() <= 0.9  # it is hardly ever at the edges, and never for long
    torch.testing.assert_close(said[inner], exact[inner], atol=0.06, rtol=0.06)
    assert bool((exact > value - 0.1 - 0.05 * value.abs()).all()), "nearly the best that can be done"
    assert float(exact.mean()) > 0.5 * float(idle.mean()), "and much better than nothing"
    assert bool((mean.squeeze(-1)[:20] > 0.5).all()) and bool((mean.squeeze(-1)[-20:] < -0.5).all())
