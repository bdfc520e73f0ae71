"""Problems whose optimum is known: Riccati against least squares, backward induction against enumeration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

import foreworld as fw
from foreworld.core import Spec
from foreworld.core.errors import ConfigError
from foreworld.models.finite import Finite
from foreworld.models.quadratic import Quadratic
from foreworld.ops import discounted_return
from foreworld.testing import (
    check_acting_row_by_row,
    check_imagine_equals_step,
    check_imagine_under_policy,
    check_input_untouched,
    check_is_first_resets,
    check_observe_in_pieces,
    check_rows_independent,
    random_actions,
    random_segment,
)

CHECKS = [check_rows_independent, check_is_first_resets, check_observe_in_pieces, check_acting_row_by_row]
CHECKS += [check_imagine_equals_step, check_imagine_under_policy, check_input_untouched]
MODELS: list[Callable[[], Any]] = [Quadratic, Finite]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("check", CHECKS)
def test_the_protocol_is_kept(check: Callable[..., None], make: Callable[[], Any]) -> None:
    def build(spec: Spec) -> Any:
        return make()

    check(build, make().spec)


@pytest.mark.parametrize("make", MODELS)
def test_there_is_nothing_to_learn_and_own_rows_have_no_error(make: Callable[[], Any]) -> None:
    model = make()
    assert not list(model.parameters())
    foreign = random_segment(model.spec)
    state = model.initial(3)
    actions = random_actions(model.spec, 3, 5, torch.Generator().manual_seed(0))
    dream = fw.imagine(model, state, actions, keep=("obs",))
    obs = dream.obs["obs"]
    obs = obs if make is Quadratic else obs.argmax(-1)
    blank = torch.zeros(3, 5, dtype=torch.bool)
    own = replace(
        foreign.rows(0, 5), obs={"obs": obs}, prev_action=actions, is_first=blank, is_last=blank, is_terminal=blank
    )
    found = model.losses(own, state)
    assert found.terms["obs"].abs().max() < 1e-9
    assert torch.allclose(model.read(found.states).reward, dream.reward)
    assert model.losses(foreign).terms["obs"].max() > 0.1


@pytest.mark.parametrize("radius", [0.5, 0.95, 1.3])
def test_riccati_agrees_with_least_squares(radius: float) -> None:
    """The return is a quadratic form of all actions at once; its maximum is the solution of one linear system."""
    for seed in range(5):
        model = Quadratic(seed=seed, radius=radius, states=3, actions=2, dtype=torch.float64)
        x = model.starts(4, horizon=6, seed=seed)
        actions, value = model.optimum(x, 6)
        assert actions.abs().amax((1, 2)).numpy() == pytest.approx(0.9)
        a, b, q, r = (m.numpy() for m in (model.system, model.inputs, model.cost, model.effort))
        free = np.concatenate([np.linalg.matrix_power(a, h + 1) for h in range(6)])
        forced = np.zeros((18, 12))
        for h, k in product(range(6), range(6)):
            if k <= h:
                forced[3 * h : 3 * h + 3, 2 * k : 2 * k + 2] = np.linalg.matrix_power(a, h - k) @ b
        roots = np.kron(np.eye(6), np.linalg.cholesky(q).T), np.kron(np.eye(6), np.linalg.cholesky(r).T)
        tall = np.concatenate([roots[0] @ forced, roots[1]])
        for start, best, worth in zip(x.numpy(), actions.numpy(), value.numpy(), strict=True):
            target = -np.concatenate([roots[0] @ free @ start, np.zeros(12)])
            found, residual, *_ = np.linalg.lstsq(tall, target, rcond=None)
            assert np.allclose(found.reshape(6, 2), best, atol=1e-9)
            assert worth == pytest.approx(-residual[0], rel=1e-9)


def test_the_optimum_earns_what_it_says_and_nothing_near_earns_more() -> None:
    model = Quadratic(seed=7, radius=1.2, dtype=torch.float64)
    x = model.starts(3, horizon=15)
    actions, value = model.optimum(x, 15)
    assert torch.allclose(fw.imagine(model, model.at(x), actions).reward.sum(1), value)
    with fw.seeded(0):
        for scale in (1e-3, 1e-2, 0.1):
            for _ in range(20):
                other = actions + scale * torch.randn_like(actions)
                assert (fw.imagine(model, model.at(x), other).reward.sum(1) < value).all()
    assert (fw.imagine(model, model.at(x), actions * 0).reward.sum(1) < 2 * value).all(), "rest is far worse"


def test_the_rewards_by_hand_and_the_gradients() -> None:
    model = Quadratic(states=1, actions=1, radius=0.5, seed=0, dtype=torch.float64)
    q, r, b = float(model.cost), float(model.effort), float(model.inputs)
    a = float(model.system)
    assert abs(a) == pytest.approx(0.5)
    action = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    after = model.read(model.step(model.at(torch.tensor([[2.0]])), action))
    x = 2 * a + 0.3 * b
    assert float(after.reward.detach()) == pytest.approx(-q * x * x - r * 0.09) and float(after.cont) == 1
    after.reward.sum().backward()
    assert float(action.grad) == pytest.approx(-2 * q * x * b - 2 * r * 0.3)  # type: ignore[arg-type]


def test_steady_gain_of_the_scalar_problem() -> None:
    """With a long horizon the first action is that of the stationary equation p = a² m - (a b m)² / (r + b² m)."""
    model = Quadratic(states=1, actions=1, radius=1.5, seed=1, dtype=torch.float64)
    a, b, q, r = (float(m) for m in (model.system, model.inputs, model.cost, model.effort))
    p = 0.0
    for _ in range(500):
        m = q + p
        p = a * a * m - (a * b * m) ** 2 / (r + b * b * m)
    actions, value = model.optimum(torch.tensor([[1.0]]), 200)
    assert float(actions[0, 0]) == pytest.approx(-a * b * (q + p) / (r + b * b * (q + p)), rel=1e-9)
    assert float(value) == pytest.approx(-p, rel=1e-9)


def enumerated(model: Finite, start: int, horizon: int, discount: float, *, blind: bool = False) -> tuple[float, Any]:
    """Play every sequence of actions; return the best return and its actions."""
    actions = torch.tensor(list(product(range(model.config.actions), repeat=horizon)))
    ready = model.spec.action.one_hot(actions)  # type: ignore[union-attr]
    dream = fw.imagine(model, model.at(torch.full((len(actions),), start)), ready)
    cont = torch.ones_like(dream.cont) if blind else dream.cont
    found = discounted_return(dream.reward, cont, discount)
    best = int(found.argmax())
    return float(found[best]), actions[best]


@pytest.mark.parametrize("discount", [1.0, 0.8])
def test_backward_induction_agrees_with_enumeration(discount: float) -> None:
    fooled = 0
    for seed in range(8):
        model = Finite(seed=seed, states=6, actions=3, terminal=2)
        starts = torch.arange(6)[model.futures[:6] > 0]
        actions, value = model.optimum(starts, 5, discount)
        for start, plan, worth in zip(starts.tolist(), actions, value.tolist(), strict=True):
            best, _ = enumerated(model, start, 5, discount)
            assert worth == pytest.approx(best, abs=1e-6)
            assert enumerated_return(model, start, plan, discount) == pytest.approx(best, abs=1e-6)
            _, blind = enumerated(model, start, 5, discount, blind=True)
            fooled += enumerated_return(model, start, blind, discount) < best - 1e-6
    assert fooled > 10, "who does not look at cont is led astray"


def enumerated_return(model: Finite, start: int, plan: torch.Tensor, discount: float) -> float:
    ready = model.spec.action.one_hot(plan[None])  # type: ignore[union-attr]
    dream = fw.imagine(model, model.at(torch.tensor([start])), ready)
    return float(discounted_return(dream.reward, dream.cont, discount))


def test_with_slips_the_best_policy_is_found_by_trying_all_policies() -> None:
    """All policies that depend on the state and the steps left, exactly, by their own linear recursion."""
    model = Finite(seed=5, states=4, actions=2, terminal=1, slip=0.4)
    chances, rewards, futures = (x.double().numpy() for x in (model.chances, model.rewards, model.futures))
    values, policy = model.values(3)
    best = np.full(5, -np.inf)
    for table in product(product(range(2), repeat=4), repeat=3):  # three steps, four states
        worth = np.zeros(5)
        for choices in table:
            act = np.array([*choices, 0])
            leads = chances[np.arange(5), act]
            worth = (leads * (rewards[act] + futures * worth)).sum(1)
        best = np.maximum(best, worth)
    assert np.allclose(best[:4], values[3][:4])
    # and by sampling
    with fw.seeded(0):
        start, total, alive = int(model.futures.argmax()), torch.zeros(20_000), torch.ones(20_000)
        state = model.at(torch.full((20_000,), start))
        for left in (2, 1, 0):
            act = torch.from_numpy(policy[left])[state.at.argmax(1)]
            state = model.step(state, model.spec.action.one_hot(act))  # type: ignore[union-attr]
            total, alive = total + alive * state.reward, alive * model.read(state).cont
    error = float(total.std()) / 20_000**0.5
    assert error > 1e-4, "chance has a say"
    assert abs(float(total.mean()) - values[3][start]) < 4 * error
    with pytest.raises(ConfigError, match="no sequence of actions is best"):
        model.optimum(torch.tensor([start]), 3)


def test_chances_are_chances_and_ends_lead_beyond() -> None:
    model = Finite(slip=0.3, terminal=3)
    assert torch.allclose(model.chances.sum(2), torch.ones(13, 3))
    ends = model.futures == 0
    assert (
        ends.sum() == 3
        and (model.chances[ends, :, -1] == 1).all()
        and not model.chances[:-1][~ends[:-1]][..., -1].any()
    )
    assert model.rewards[:, :-1].abs().max() <= 1 and (model.rewards[:, -1] == 10).all()
    soft = torch.full((1, 3), 1 / 3, requires_grad=True)
    with fw.deterministic():
        state = model.step(model.initial(1), soft)
    assert float(state.at.detach().sum()) == pytest.approx(1)
    state.reward.sum().backward()
    assert soft.grad is not None and soft.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (Quadratic, {"actions": 0}, "quadratic: states and actions are at least 1"),
        (Quadratic, {"effort": 0.0}, "effort above 0"),
        (Finite, {"terminal": 12}, "terminal is below states"),
        (Finite, {"slip": 1.1}, "slip a probability"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**fields)
    with pytest.raises(ConfigError, match="a horizon of at least 1"):
        model = make()
        model.optimum(torch.zeros(1, 4), 0) if make is Quadratic else model.values(0)
