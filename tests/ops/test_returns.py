"""Lambda-returns by hand and against a loop that knows nothing of tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foreworld.ops import discounted_return, lambda_return

NUMBER = st.floats(-10, 10, width=32)
SHARE = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1, width=32))


def test_by_hand() -> None:
    reward, cont, value = (torch.tensor([x]) for x in ([1.0, 2.0, 4.0], [1.0, 0.5, 1.0], [10.0, 20.0, 40.0]))
    last = 4 + 0.5 * 40  # both parts of the mixture are the value at the horizon
    middle = 2 + 0.5 * 0.5 * (0.75 * 20 + 0.25 * last)
    first = 1 + 0.5 * (0.75 * 10 + 0.25 * middle)
    found = lambda_return(reward, cont, value, 0.5, 0.25)
    torch.testing.assert_close(found, torch.tensor([[first, middle, last]]))


def test_nothing_follows_an_end_and_the_reward_of_reaching_it_counts() -> None:
    reward, cont = torch.tensor([[1.0, 5.0, 100.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    found = lambda_return(reward, cont, torch.full((1, 3), 1000.0), 1.0, 1.0)
    assert found[0, :2].tolist() == [6.0, 5.0]


def test_lam_0_is_one_step_and_lam_1_is_the_discounted_return_with_a_bootstrap() -> None:
    reward, value, cont = torch.randn(2, 5), torch.randn(2, 5), torch.rand(2, 5)
    torch.testing.assert_close(lambda_return(reward, cont, value, 0.9, 0.0), reward + 0.9 * cont * value)
    whole = lambda_return(reward, cont, value, 0.9, 1.0)[:, 0]
    boot = 0.9**5 * cont.prod(1) * value[:, -1]
    torch.testing.assert_close(whole, discounted_return(reward, cont, 0.9) + boot)


@st.composite
def trajectories(draw: st.DrawFn) -> dict[str, Any]:
    length = draw(st.integers(1, 8))
    lists = {"reward": NUMBER, "cont": SHARE, "value": NUMBER, "lam": SHARE}
    found: dict[str, Any] = {name: draw(st.lists(one, min_size=length, max_size=length)) for name, one in lists.items()}
    return found | {"discount": draw(SHARE)}


def expected(reward: Any, cont: Any, value: Any, lam: Any, discount: float, t: int = 0) -> float:
    """Return R_t, by the definition: recursion forward in time."""
    ahead = value[t] if t + 1 == len(reward) else expected(reward, cont, value, lam, discount, t + 1)
    return reward[t] + discount * cont[t] * ((1 - lam[t]) * value[t] + lam[t] * ahead)


@given(trajectories())
def test_every_return_is_that_of_the_definition(case: dict[str, Any]) -> None:
    reward, cont, value, lam = (torch.tensor([case[name]]).double() for name in ("reward", "cont", "value", "lam"))
    found = lambda_return(reward, cont, value, case["discount"], lam)
    wanted = [expected(**case, t=t) for t in range(reward.shape[1])]
    assert found[0].tolist() == pytest.approx(wanted, rel=1e-9, abs=1e-9)
    shared = case | {"lam": [case["lam"][0]] * reward.shape[1]}
    found = lambda_return(reward, cont, value, case["discount"], case["lam"][0])
    assert found[0].tolist() == pytest.approx([expected(**shared, t=t) for t in range(reward.shape[1])], abs=1e-9)


@given(trajectories(), st.data())
def test_what_follows_a_lam_of_0_changes_nothing_before(case: dict[str, Any], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(case["reward"]) - 1))
    reward, cont, value, lam = (torch.tensor([case[name]]).double() for name in ("reward", "cont", "value", "lam"))
    lam[:, cut] = 0
    before = lambda_return(reward, cont, value, case["discount"], lam)[:, : cut + 1]
    for tensor in (reward, cont, value, lam):
        tensor[:, cut + 1 :] = 0.5
    after = lambda_return(reward, cont, value, case["discount"], lam)[:, : cut + 1]
    assert torch.equal(before, after)
